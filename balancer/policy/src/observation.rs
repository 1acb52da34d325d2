//! What the policy is told.

use super::ceiling::Ceiling;
use super::knobs::Knobs;
use super::memory::{Counters, GuestMemory, HostMemory};
use protocol::limits::Limits;
use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};

/// Everything a decision depends on. There is no clock: `now_ms` is the time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// Time of the observation by a clock that only rises, milliseconds.
    pub now_ms: u64,
    /// The host; `None` where nothing is known of it: then limits alone bind.
    pub host: Option<HostView>,
    /// The knobs.
    pub knobs: Knobs,
    /// What the last plan said to remember of the host.
    pub memory: HostMemory,
    /// All containers. The first is the root, and each comes after the one it is in.
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
    /// How long ago tasks of the host stalled for memory; `None` if they did not, or if nobody counts.
    pub stalled_age_ms: Option<u64>,
}

/// A container as the policy sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerView {
    /// Its path.
    pub path: ContainerPath,
    /// Where the container that it is in stands in the observation; 0 for the root itself.
    pub parent: usize,
    /// Its limits.
    pub limits: Limits,
    /// What it pays for beside its guests, such as pages of the shared pool: that comes before what they may have. Bytes.
    #[serde(default)]
    pub charged_bytes: u64,
}

/// A guest as the policy sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestView {
    /// Its name.
    pub name: String,
    /// Where the container that it is attached to stands in the observation.
    pub container: usize,
    /// Its RAM, bytes.
    pub ram_bytes: u64,
    /// What it needs to live, bytes.
    pub floor_bytes: u64,
    /// What the host spends for it beside its RAM: charged to its container first (R1). Bytes.
    pub overhead_bytes: u64,
    /// Host memory behind its RAM by the host's own count, bytes.
    pub usage_bytes: u64,
    /// What it can hold at most: RAM less its balloon, bytes.
    pub actual_bytes: u64,
    /// What it gave into its balloon and was found to use again, since its boot; bytes. A guest that takes memory back by the
    /// book deflates: that is not counted here, nor are pages that it reported free and uses again, its ordinary way to use them.
    #[serde(default)]
    pub refaulted_bytes: u64,
    /// False for a machine without a balloon. Recordings of before this was known have it.
    #[serde(default = "has_balloon")]
    pub has_balloon: bool,
    /// True once a driver in the guest serves the balloon.
    pub driver_ready: bool,
    /// Its statistics as told last, however long ago.
    pub statistics: Option<GuestStatistics>,
    /// Whether it ran out of memory lately.
    pub out_of_memory: OutOfMemory,
    /// What containers beside its own that it charges let it hold at most.
    pub ceiling: Option<Ceiling>,
    /// What the last plan said to remember of it.
    #[serde(default)]
    pub memory: GuestMemory,
}

/// A guest's own statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestStatistics {
    /// Age, milliseconds.
    pub age_ms: u64,
    /// Counts the samples.
    pub sequence: u64,
    /// What it uses: total less available, without what is in its balloon. Bytes.
    pub used_bytes: u64,
    /// What it could use without swapping, bytes.
    pub available_bytes: u64,
    /// Page cache, bytes: most of it is available as well.
    pub cache_bytes: u64,
    /// What it used lately of what it uses, where the host can see that; bytes.
    pub working_set_bytes: Option<u64>,
    /// Counters since its boot.
    pub counters: Counters,
}

/// A guest that took memory back from its balloon because it had run out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutOfMemory {
    /// It did not.
    #[default]
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

/// Statistics older than this say nothing. Milliseconds.
pub const STATISTICS_AGE_MS_MAX: u64 = 5000;

fn has_balloon() -> bool {
    true
}

impl GuestView {
    /// Its statistics if they are fresh.
    #[must_use]
    pub fn fresh(&self) -> Option<&GuestStatistics> {
        self.statistics.as_ref().filter(|statistics| statistics.age_ms <= STATISTICS_AGE_MS_MAX)
    }

    /// What it may be using at this moment, bytes: what its balloon leaves it, or more if it is found to use more. Before a driver
    /// serves the balloon nothing holds a guest back, and what it uses already is all that is known.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let could = if self.driver_ready { self.actual_bytes } else { 0 };
        could.max(self.usage_bytes).min(self.ram_bytes)
    }
}
