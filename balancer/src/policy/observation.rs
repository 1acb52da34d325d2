//! What the policy is told.

use super::ceiling::Ceiling;
use protocol::limits::Limits;
use protocol::path::ContainerPath;

/// Everything a decision depends on.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// All containers; a container whose parent is not among them counts as directly inside the root.
    pub containers: Vec<ContainerView>,
    /// All guests.
    pub guests: Vec<GuestView>,
}

/// A container as the policy sees it.
#[derive(Debug, Clone)]
pub struct ContainerView {
    /// Its path.
    pub path: ContainerPath,
    /// Its limits.
    pub limits: Limits,
    /// What it pays for beside its guests, such as pages of the shared pool: that comes before what they may have. Bytes.
    pub charged_bytes: u64,
}

/// A guest as the policy sees it.
#[derive(Debug, Clone)]
pub struct GuestView {
    /// Its name.
    pub name: String,
    /// The container it is attached to.
    pub container: ContainerPath,
    /// Its RAM, bytes.
    pub ram_bytes: u64,
    /// What it needs to live, bytes.
    pub floor_bytes: u64,
    /// What the host spends for it beside its RAM: charged to its container first (R1). Bytes.
    pub overhead_bytes: u64,
    /// What it uses by fresh statistics (total less available), bytes; `None` when they are absent or stale.
    pub used_bytes: Option<u64>,
    /// Whether it ran out of memory lately.
    pub out_of_memory: OutOfMemory,
    /// What containers beside its own that it charges let it hold at most.
    pub ceiling: Option<Ceiling>,
}

/// A guest that took memory back from its balloon because it had run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfMemory {
    /// It did not.
    No,
    /// It did just now: it keeps what it holds.
    Holding {
        /// What it holds, bytes.
        actual_bytes: u64,
    },
    /// The hold is over: it goes back as far as its fresh statistics permit; without them it keeps what it holds.
    Returning {
        /// What it holds, bytes.
        actual_bytes: u64,
    },
}
