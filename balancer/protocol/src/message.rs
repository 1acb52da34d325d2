//! Messages between a `vmm` and the balancer over the guest socket: one JSON object per seqpacket.
//!
//! ```text
//!  vmm                                   balancer
//!   | OpenImages {..} -->                  |   on a connection of its own, before the guest is built
//!   |<-- Images {..} + descriptors         |   or Refused {..}; then that connection ends
//!   | Register {..} + frame-table memfd -->|
//!   |<-- Registered {..} or Refused {..}   |   or, to one that waits: Waiting {..}, and one of them later
//!   |<-- Target {..}                       |   whenever a limit or the policy moves it
//!   | Balloon {..} -->                     |   whenever the guest moved
//!   |<-- SampleStats, Statistics {..} -->  |   at the policy's interval
//!   | DiskCache {..} -->                   |   when the disks moved bytes, else now and then
//!   |<-- DropDiskCache {..}                |   when a limit leaves less for it
//!   |<-- Reconcile, Reconciled {..} -->    |   when exact frames are wanted now
//!   |<-- ReconcileShare {..}               |   when guests come or go
//!   | AskCharge {..} -->                   |   the guest wants another container to be charged
//!   |<-- RefuseCharge {..}, or Charge {..} |   the latter also when an operator moves the guest
//!   | Charged {..} -->                     |   done: pages that are touched from now on are charged so
//!   | Stuck {..} -->                       |   its machine does not answer, or does again (engine qemu)
//!   |<-- Detach, Ended {..} -->            |   an attached guest is released as it was found
//!   |<-- FdsMax {..}                       |   when what its containers leave changes
//!   |<-- Pause {..}                        |   when the host is out of memory, and when it is not any more
//!   | ServePool {..} -->                   |   on a second connection, for images with a managed backing
//!   |<-- Images {..} + descriptors         |   the guest holds nothing of them yet; or Refused {..}
//!   | AskGranules {..} -->                 |   a vCPU or a device waits for a part that is not there
//!   |<-- Granules {..}                     |   it is there now, or the reason why it is not
//!   |<-- Unmap {..}, Unmapped {..} -->     |   the balancer needs the room
//! ```
//!
//! The second connection is served by a thread that never touches guest memory: the event loop may wait for a granule
//! itself.
//!
//! A hang-up of either side ends the session: the guest runs on inside its last target and registers again.

use crate::disk::{CachedFile, KeepCached};
use crate::engine::Engine;
use crate::image::{ImageHandle, MappedImage};
use crate::limits::LimitsPatch;
use crate::path::ContainerPath;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Version of this protocol. Sides of different versions refuse each other.
pub const PROTOCOL_VERSION: u32 = 9;

/// CPU time that comparing frame tables with the kernel may cost a host, all its guests together: 1 % of one CPU, in
/// parts per million.
pub const RECONCILE_CPU_PPM: u32 = 10_000;

/// Memory that a QEMU is assumed to take in addition to guest RAM until that is measured, bytes: under TCG, with
/// Debian's kernel, which it maps.
pub const QEMU_BYTES_ASSUMED: u64 = 128 << 20;

/// Most owners that the frames of one guest may have at a time: their ids fit into a message.
pub const OWNERS_MAX: usize = 1024;

/// Most paths that a guest may be allowed to charge in addition to its own container.
pub const MAY_CHARGE_MAX: usize = 16;

/// Longest message, bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// From a `vmm` to the balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FromVmm {
    /// A guest is to be built that maps images of the pool: the only message of its connection.
    OpenImages(OpenImages),
    /// The first message; the frame table's descriptor travels with it.
    Register(Register),
    /// The balloon's state changed.
    Balloon(Balloon),
    /// A fresh sample of the guest's own statistics.
    Statistics(Statistics),
    /// What the host's page cache holds of the guest's disks.
    DiskCache {
        /// The files behind them, each once, at most [`DISK_FILES_MAX`](crate::disk::DISK_FILES_MAX).
        files: Vec<CachedFile>,
        /// Age of the reading when it was sent, milliseconds.
        age_ms: u64,
    },
    /// The frame table was compared with the kernel's view, as was asked.
    Reconciled {
        /// Frames whose state had to be mended.
        mended_frames: u64,
        /// Time it took, microseconds.
        took_us: u64,
    },
    /// The guest asks that pages which it touches from now on are charged to a container.
    AskCharge {
        /// Names the question in its answer.
        question: u64,
        /// The container; `None` for its own.
        to: Option<ContainerPath>,
    },
    /// A command to charge a container was carried out.
    Charged {
        /// The last command that was.
        order: u64,
        /// Frames that were charged to another container before.
        moved_frames: u64,
    },
    /// A registered guest asks for its images with a managed backing: the first message of its second connection. From
    /// the answer on it maps nothing of them.
    ServePool(ServePool),
    /// A vCPU or a device waits for granules of an image. They may be answered one by one.
    AskGranules {
        /// Index into [`Register::images`].
        image: u16,
        /// The first of them.
        first: u64,
        /// How many, at most [`GRANULES_ASKED_MAX`](crate::image::GRANULES_ASKED_MAX).
        count: u64,
    },
    /// What was to be unmapped is.
    Unmapped {
        /// Index into [`Register::images`].
        image: u16,
        /// The first granule.
        first: u64,
        /// How many.
        count: u64,
    },
    /// The machine behind the guest, a process of its own, stopped answering or answers again.
    Stuck {
        /// What it does not answer, one sentence; `None` when it does again.
        reason: Option<String>,
    },
    /// The guest ended by itself or by a signal; the socket closes next.
    Ended {
        /// Why, one sentence.
        reason: String,
    },
}

/// Which images a guest wants to map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenImages {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub protocol_version: u32,
    /// The container that the guest will be attached to: it decides about the trust domain.
    pub container: ContainerPath,
    /// Images as the user named them, at most [`IMAGES_MAX`](crate::image::IMAGES_MAX).
    pub images: Vec<String>,
}

/// A guest that wants to be served granules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServePool {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub protocol_version: u32,
    /// The guest by its name; the same process registered it.
    pub guest: String,
}

/// The answer about granules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case", deny_unknown_fields)]
pub enum GranuleOutcome {
    /// They are there, and stay until the balancer asks for them.
    There,
    /// They are not available now. The guest asks again.
    Failed {
        /// Why, one sentence.
        reason: String,
    },
}

/// A guest, as it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// [`PROTOCOL_VERSION`] of the sender.
    pub protocol_version: u32,
    /// Name, unique among the guests of the balancer.
    pub name: String,
    /// The container it is attached to; created if it does not exist.
    pub container: ContainerPath,
    /// Containers that the guest may charge by its own choice, with all containers inside them, in addition to
    /// containers inside its own: at most [`MAY_CHARGE_MAX`].
    pub may_charge: Vec<ContainerPath>,
    /// With `comes_back`: the container that is charged, if it is not its own container.
    pub charge_to: Option<ContainerPath>,
    /// With `comes_back`: owner ids that its frames may have, by the last charge. At most [`OWNERS_MAX`].
    pub owners: Vec<u16>,
    /// Limits for that container, if any were given.
    pub limits: Option<LimitsPatch>,
    /// Images of the pool that it has mapped, at most [`IMAGES_MAX`](crate::image::IMAGES_MAX).
    pub images: Vec<MappedImage>,
    /// True if the kernel is to merge pages of its RAM that are equal to pages of other guests (KSM). It begins once
    /// the guest is admitted.
    pub merge: bool,
    /// Guest RAM, bytes.
    pub ram_bytes: u64,
    /// Memory that the guest needs to boot and live: no target goes below it. Bytes.
    pub floor_bytes: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Virtio devices.
    pub devices: u32,
    /// File descriptors that its `vmm` has open while it runs.
    pub fds: u32,
    /// Threads that its `vmm` has while it runs.
    pub threads: u32,
    /// The hypervisor.
    pub engine: Engine,
    /// The process that has the guest's RAM, if it is not the `vmm` itself.
    pub machine: Option<MachineProcess>,
    /// True if an earlier balancer admitted the guest: the limits of its container in the journal are newer than
    /// `limits`.
    pub comes_back: bool,
    /// True if it waits while there is not enough memory, instead of being refused.
    pub wait: bool,
    /// True if the machine has a balloon. Memory of a guest without one is charged, but cannot be reclaimed.
    pub has_balloon: bool,
    /// Why the frames of its RAM cannot be scanned, one sentence; `None` if they can.
    pub ram_unseen: Option<String>,
    /// The balloon's state now.
    pub balloon: Balloon,
}

impl Register {
    /// The first registration of a guest on KVM with this RAM, whose balloon is empty, and nothing else. The other
    /// fields are given by struct update.
    #[must_use]
    pub fn of(name: impl Into<String>, container: ContainerPath, ram_bytes: u64) -> Self {
        Self {
            protocol_version: PROTOCOL_VERSION,
            name: name.into(),
            container,
            may_charge: vec![],
            charge_to: None,
            owners: vec![],
            limits: None,
            images: vec![],
            merge: false,
            ram_bytes,
            floor_bytes: 0,
            cpus: 1,
            devices: 0,
            fds: 0,
            threads: 0,
            engine: Engine::Kvm,
            machine: None,
            comes_back: false,
            wait: false,
            has_balloon: true,
            ram_unseen: None,
            balloon: Balloon { target_bytes: ram_bytes, actual_bytes: ram_bytes, ..Balloon::default() },
        }
    }
}

/// A process that runs a guest for its `vmm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineProcess {
    /// Its process id.
    pub pid: i32,
    /// True if another program started it: then it can be detached, and runs on.
    pub attached: bool,
}

/// State of a guest's balloon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// True once a driver in the guest serves the balloon.
    pub driver_ready: bool,
    /// What the guest was asked to hold at most: RAM less the balloon's target. Bytes.
    pub target_bytes: u64,
    /// What it can hold at most: RAM less what is in the balloon by the host's own count, never by the guest's. Bytes.
    pub actual_bytes: u64,
    /// Times that the guest deflated the balloon because it was out of memory, since boot.
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
    /// Bytes of the balloon that the guest counts as used: all of them if it deflates when it is out of memory, none
    /// otherwise (`adjust_managed_page_count` in drivers/virtio/virtio_balloon.c).
    pub ballooned_used_bytes: u64,
    /// Counts the samples since boot.
    pub sequence: u64,
    /// Age of the sample when it was sent, milliseconds.
    pub age_ms: u64,
}

/// From the balancer to a `vmm`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToVmm {
    /// The guest is admitted.
    Registered {
        /// [`PROTOCOL_VERSION`] of the balancer.
        protocol_version: u32,
        /// Owner id of the payer, for the frame table: its container, or the one it charged before it came back.
        owner: u16,
        /// First target: what the guest may hold of its RAM, bytes.
        target_bytes: u64,
    },
    /// The images that were asked for, or all of the guest's, in that order; a descriptor of each travels with it.
    Images {
        /// What they are.
        images: Vec<ImageHandle>,
    },
    /// Memory is missing for the guest: it is admitted, or refused, once others released some. Closing the connection
    /// cancels the wait.
    Waiting {
        /// What is missing and who holds it, one sentence.
        reason: String,
    },
    /// The guest is not admitted; the socket closes next.
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
    /// The guest pauses or resumes; it also resumes when the balancer hangs up. Its devices are served while it is
    /// paused.
    Pause {
        /// True to pause.
        paused: bool,
    },
    /// The guest's statistics are wanted.
    SampleStats,
    /// A guest that was attached is to be left as it was found; its `vmm` sends [`FromVmm::Ended`] when it is.
    Detach,
    /// The host's page cache may hold no more than this of these files: the rest is written back and dropped, and then
    /// [`FromVmm::DiskCache`] reports what stayed.
    DropDiskCache {
        /// At most [`DISK_FILES_MAX`](crate::disk::DISK_FILES_MAX).
        files: Vec<KeepCached>,
    },
    /// The frame table is to be compared with the kernel's view now.
    Reconcile,
    /// What the `vmm` may spend on its own comparisons of the frame table from now on.
    ReconcileShare {
        /// Share of one CPU, parts per million: this guest's part of [`RECONCILE_CPU_PPM`].
        cpu_ppm: u32,
    },
    /// Another container is charged from now on. Pages that were touched before are charged as they were: the `vmm`
    /// compares its table with the kernel first. It repeats what this says when it registers again.
    Charge(Charge),
    /// The guest may not charge the container that it asked for.
    RefuseCharge {
        /// The question.
        question: u64,
        /// Why, one sentence.
        reason: String,
    },
    /// The answer about granules of an image.
    Granules {
        /// Index into [`Register::images`].
        image: u16,
        /// The first of them.
        first: u64,
        /// How many.
        count: u64,
        /// What became of them.
        outcome: GranuleOutcome,
    },
    /// The room that granules take is needed: the guest unmaps them and reports that.
    Unmap {
        /// Index into [`Register::images`].
        image: u16,
        /// The first of them.
        first: u64,
        /// How many.
        count: u64,
    },
    /// What the limits of its containers leave of file descriptors, from now on.
    FdsMax {
        /// Most that the `vmm` may have open; `null` for no limit but the system's.
        fds_max: Option<u32>,
    },
}

/// Which container is charged for a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// Counts the commands of this connection from 1.
    pub order: u64,
    /// The guest's question that this answers, if it is an answer.
    pub question: Option<u64>,
    /// The container that the guest is attached to.
    pub container: ContainerPath,
    /// The container that is charged from now on, if that is another one.
    pub charge_to: Option<ContainerPath>,
    /// Owner id of the payer: for frames that become private from now on.
    pub owner: u16,
    /// True if every frame that the guest holds is charged to `owner` as well.
    pub with_charges: bool,
    /// All owner ids that its frames may have.
    pub owners: Vec<u16>,
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
