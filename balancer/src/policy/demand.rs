//! What a guest is likely to make use of.

use super::observation::{GuestView, OutOfMemory};

/// Headroom at least, bytes.
const HEADROOM_BYTES_MIN: u64 = 64 << 20;
/// Headroom as a part of what is used: a quarter.
const HEADROOM_PART: u64 = 4;

impl GuestView {
    /// What it uses and some headroom; `None` without fresh statistics.
    fn needed_bytes(&self) -> Option<u64> {
        self.used_bytes.map(|used| used.saturating_add(HEADROOM_BYTES_MIN.max(used / HEADROOM_PART)))
    }

    /// What it needs to live, at most its RAM.
    pub(super) fn hard_floor_bytes(&self) -> u64 {
        self.floor_bytes.min(self.ram_bytes)
    }

    /// Its floor now: raised after it ran out of memory.
    pub(crate) fn raised_floor_bytes(&self) -> u64 {
        let kept = match self.out_of_memory {
            OutOfMemory::No => 0,
            OutOfMemory::Holding { actual_bytes } => actual_bytes,
            // Never more than it holds: coming back must not become growing.
            OutOfMemory::Returning { actual_bytes } => {
                self.needed_bytes().unwrap_or(actual_bytes).min(actual_bytes)
            }
        };
        self.hard_floor_bytes().max(kept.min(self.ram_bytes))
    }

    /// What it is likely to make use of: all its RAM as long as it does not say otherwise.
    pub(super) fn demand_bytes(&self) -> u64 {
        self.needed_bytes().unwrap_or(self.ram_bytes).clamp(self.raised_floor_bytes(), self.most_bytes())
    }
}
