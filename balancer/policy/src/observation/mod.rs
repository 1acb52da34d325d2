//! What the policy knows when it decides.

pub(crate) mod guest;
pub(crate) mod memory;

use crate::knobs::Knobs;
use guest::GuestView;
use memory::HostMemory;
use protocol::limits::Limits;
use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};

/// Everything that a decision depends on. There is no clock: `now_ms` is the time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// Time of the observation by a clock that only rises, milliseconds.
    pub now_ms: u64,
    /// The host; `None` if nothing is known of it: then limits alone bind.
    pub host: Option<HostView>,
    /// The knobs.
    pub knobs: Knobs,
    /// What the last plan remembered of the host.
    pub memory: HostMemory,
    /// All containers. The first is the root, and each comes after its parent.
    pub containers: Vec<ContainerView>,
    /// All guests.
    pub guests: Vec<GuestView>,
}

/// The host as the policy sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Its memory, bytes.
    pub total_bytes: u64,
    /// What could be used without swapping, bytes.
    pub available_bytes: u64,
    /// Age of those figures, milliseconds.
    pub age_ms: u64,
    /// How long ago tasks of the host stalled for memory; `None` if they did not, or if the kernel does not count
    /// stalls.
    pub stalled_age_ms: Option<u64>,
}

/// A container as the policy sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerView {
    /// Its path.
    pub path: ContainerPath,
    /// Index of its parent in the observation; 0 for the root itself.
    pub parent: usize,
    /// Its limits.
    pub limits: Limits,
    /// What it is charged in addition to its guests, such as pages of the shared pool: that comes before what its
    /// guests may have. Bytes.
    #[serde(default)]
    pub charged_bytes: u64,
}
