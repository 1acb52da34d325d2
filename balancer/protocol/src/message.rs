//! What a `vmm` and the balancer say to each other over the guest socket: one JSON object per seqpacket.
//!
//! ```text
//!  vmm                                   balancer
//!   | Register {..} + frame-table memfd -->|
//!   |<-- Registered {..} or Refused {..}   |
//!   |<-- Target {..}                       |   whenever a limit or the policy moves it
//!   | Balloon {..} -->                     |   whenever the guest moved
//!   |<-- SampleStats, Statistics {..} -->  |   at the policy's interval
//!   |<-- Reconcile, Reconciled {..} -->    |   when somebody wants exact frames now
//! ```
//!
//! A hang-up of either side ends the session: the guest runs on inside its last target and registers again.

use crate::limits::LimitsPatch;
use crate::path::ContainerPath;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Version of this protocol. Sides of different versions refuse each other.
pub const PROTOCOL_VERSION: u32 = 1;

/// Longest message, bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// From a `vmm` to the balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromVmm {
    /// The first message; the frame table's descriptor travels with it.
    Register(Register),
    /// The balloon's state changed.
    Balloon(Balloon),
    /// A fresh sample of the guest's own statistics.
    Statistics(Statistics),
    /// The frame table was compared with the kernel's view.
    Reconciled {
        /// Frames whose state had to be mended.
        mended_frames: u64,
        /// Time it took, microseconds.
        took_us: u64,
    },
    /// Something worth an entry among the events.
    Event {
        /// A short name, snake_case.
        kind: String,
        /// One sentence.
        detail: String,
    },
    /// The guest ended by itself or by a signal; the socket closes next.
    Ended {
        /// Why, one sentence.
        reason: String,
    },
}

/// What a guest is, told when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub protocol_version: u32,
    /// Name, unique among the guests of the balancer.
    pub name: String,
    /// The container it is attached to; made if it does not exist.
    pub container: ContainerPath,
    /// Limits for that container, if any were given.
    pub limits: Option<LimitsPatch>,
    /// Guest RAM, bytes.
    pub ram_bytes: u64,
    /// What the guest needs to boot and live: no target goes below it. Bytes.
    pub floor_bytes: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// `kvm` or `qemu`.
    pub engine: String,
    /// The balloon's state now (not empty when registering again).
    pub balloon: Balloon,
}

/// State of a guest's balloon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// True once a driver in the guest serves the balloon.
    pub driver_ready: bool,
    /// What the guest was asked to hold at most: RAM less the balloon's target. Bytes.
    pub target_bytes: u64,
    /// What it holds at most by its own word: RAM less the balloon's actual. Bytes.
    pub actual_bytes: u64,
    /// Bytes of RAM in the balloon as the host counted them.
    pub ballooned_bytes: u64,
    /// Times that the guest took memory back because it was out of memory, since boot.
    pub oom_deflates: u64,
}

/// The guest's own statistics (virtio 1.3, section 5.5.6.3). A field is `null` when the guest does not report it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are the specification's")]
pub struct Statistics {
    pub swap_in_bytes: Option<u64>,
    pub swap_out_bytes: Option<u64>,
    pub major_faults: Option<u64>,
    pub minor_faults: Option<u64>,
    pub free_memory_bytes: Option<u64>,
    pub total_memory_bytes: Option<u64>,
    pub available_memory_bytes: Option<u64>,
    pub disk_caches_bytes: Option<u64>,
    pub hugetlb_allocations: Option<u64>,
    pub hugetlb_failures: Option<u64>,
    pub oom_kills: Option<u64>,
    pub alloc_stalls: Option<u64>,
    pub async_scans: Option<u64>,
    pub direct_scans: Option<u64>,
    pub async_reclaims: Option<u64>,
    pub direct_reclaims: Option<u64>,
    /// Counts the samples since boot.
    pub sequence: u64,
    /// Age of the sample when it was sent, milliseconds.
    pub age_ms: u64,
}

/// From the balancer to a `vmm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToVmm {
    /// The guest is in.
    Registered {
        /// [`PROTOCOL_VERSION`] of the balancer.
        protocol_version: u32,
        /// Owner id of its container, for the frame table.
        owner: u16,
        /// First target: what the guest may hold of its RAM, bytes.
        target_bytes: u64,
    },
    /// The guest is not taken; the socket closes next.
    Refused {
        /// Why, one sentence.
        reason: String,
    },
    /// What the guest may hold of its RAM from now on.
    Target {
        /// Bytes.
        target_bytes: u64,
        /// Which rule said so, one sentence.
        reason: String,
    },
    /// The guest's statistics are wanted.
    SampleStats,
    /// The frame table is to be compared with the kernel's view now.
    Reconcile,
    /// The container of the guest changed its id.
    Owner {
        /// Owner id for frames that become private from now on.
        owner: u16,
    },
}

/// Why a packet is not a message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("A message of more than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// Not JSON of the expected form.
    #[error("A malformed message")]
    Malformed(#[from] serde_json::Error),
}

/// A message as the bytes of one packet.
///
/// # Errors
/// When it would be longer than [`MESSAGE_BYTES_MAX`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, MessageError> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_BYTES_MAX { Err(MessageError::TooLong) } else { Ok(bytes) }
}

/// The message in a packet.
///
/// # Errors
/// When the packet is too long or malformed.
pub fn decode<M: for<'de> Deserialize<'de>>(packet: &[u8]) -> Result<M, MessageError> {
    if packet.len() > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong);
    }
    Ok(serde_json::from_slice(packet)?)
}
