//! A guest as the policy sees it.

use super::memory::{Counters, GuestMemory};
use crate::guest::ceiling::Ceiling;
use serde::{Deserialize, Serialize};

/// Statistics that are older than this tell nothing about now. Milliseconds.
pub const STATISTICS_AGE_MS_MAX: u64 = 5000;
/// Headroom at least, bytes.
const HEADROOM_BYTES_MIN: u64 = 64 << 20;
/// Headroom as a part of what is used: a quarter.
const HEADROOM_PART: u64 = 4;
/// What a guest may hold beyond its target without owing it, at least, and as a part of its RAM.
const TOLERANCE_BYTES_MIN: u64 = 4 << 20;
const TOLERANCE_PART: u64 = 256;

/// What a guest that uses this much needs, bytes: that and some headroom.
#[must_use]
pub fn needed_bytes(used_bytes: u64) -> u64 {
    used_bytes.saturating_add(HEADROOM_BYTES_MIN.max(used_bytes / HEADROOM_PART))
}

/// A guest as the policy sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuestView {
    /// Its name.
    pub name: String,
    /// Index of the container that it is attached to in the observation.
    pub container: usize,
    /// Its RAM, bytes.
    pub ram_bytes: u64,
    /// What it needs to live, bytes.
    pub floor_bytes: u64,
    /// What the host spends for it in addition to its RAM: charged to its container first (R1). Bytes.
    pub overhead_bytes: u64,
    /// Host memory behind its RAM as the host counts it, bytes.
    pub usage_bytes: u64,
    /// What it can hold at most: RAM less its balloon, bytes.
    pub actual_bytes: u64,
    /// Memory in its balloon that it was found to use again, since its boot; bytes. A guest that follows the protocol
    /// deflates first: that is not counted here, nor are pages that it reported free and uses again, as it may.
    #[serde(default)]
    pub refaulted_bytes: u64,
    /// False for a machine without a balloon. Recordings without this field are of machines that have one.
    #[serde(default = "has_balloon")]
    pub has_balloon: bool,
    /// True once a driver in the guest serves the balloon.
    pub driver_ready: bool,
    /// Its last statistics, however old.
    pub statistics: Option<GuestStatistics>,
    /// Whether it ran out of memory lately.
    pub out_of_memory: OutOfMemory,
    /// What it may hold at most because of containers that it charges in addition to its own.
    pub ceiling: Option<Ceiling>,
    /// What the last plan remembered of it.
    #[serde(default)]
    pub memory: GuestMemory,
}

/// The statistics of a guest.
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
    /// The part of `used_bytes` that it used lately, if the host can see that; bytes.
    pub working_set_bytes: Option<u64>,
    /// Counters since its boot.
    pub counters: Counters,
}

/// Whether a guest deflated its balloon because it had run out of memory.
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

fn has_balloon() -> bool {
    true
}

impl GuestView {
    /// Its statistics if they are fresh.
    #[must_use]
    pub fn fresh(&self) -> Option<&GuestStatistics> {
        self.statistics.as_ref().filter(|statistics| statistics.age_ms <= STATISTICS_AGE_MS_MAX)
    }

    /// What it may be using at this moment, bytes: RAM less its balloon, or more if it is found to use more. Before a
    /// driver serves the balloon nothing holds a guest back, and what it uses already is all that is known.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let could = if self.driver_ready { self.actual_bytes } else { 0 };
        could.max(self.usage_bytes).min(self.ram_bytes)
    }

    /// What it needs to live, at most its RAM.
    pub(crate) fn hard_floor_bytes(&self) -> u64 {
        self.floor_bytes.min(self.ram_bytes)
    }

    /// Its floor now: raised after it ran out of memory.
    #[must_use]
    pub fn raised_floor_bytes(&self) -> u64 {
        let kept = match self.out_of_memory {
            OutOfMemory::No => 0,
            OutOfMemory::Holding { actual_bytes } => actual_bytes,
            // Never more than it holds: a guest that goes back must not grow.
            OutOfMemory::Returning { actual_bytes } => self
                .fresh()
                .map_or(actual_bytes, |statistics| needed_bytes(statistics.used_bytes).min(actual_bytes)),
        };
        self.hard_floor_bytes().max(kept.min(self.ram_bytes))
    }

    /// What it may hold beyond a target without owing it, bytes.
    #[must_use]
    pub fn tolerance_bytes(&self) -> u64 {
        TOLERANCE_BYTES_MIN.max(self.ram_bytes / TOLERANCE_PART)
    }

    /// Why it cannot be made to release memory, whatever it is asked; `None` for a guest that can.
    #[must_use]
    pub fn cannot_give(&self) -> Option<&'static str> {
        match (self.has_balloon, self.driver_ready) {
            (false, _) => Some("It has no balloon: it cannot be made to release memory"),
            (true, false) => {
                Some("No driver serves its balloon: it cannot be made to release memory until one does")
            }
            (true, true) => None,
        }
    }

    /// True if it holds more than it was asked to.
    pub(crate) fn owes(&self) -> bool {
        let beyond = |target: u64| self.held_bytes() > target.saturating_add(self.tolerance_bytes());
        self.out_of_memory == OutOfMemory::No && self.memory.target_bytes.is_some_and(beyond)
    }
}
