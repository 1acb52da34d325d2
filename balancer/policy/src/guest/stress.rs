//! Whether a guest is short of memory, by the counters in its statistics.
//!
//! The counters mean what the kernel says they mean (Linux 6.12, the commits that added tags 10 to 15 to the
//! statistics):
//!
//! | stalls | scanned | reclaimed | meaning |
//! |---|---|---|---|
//! | many | many | many | the whole guest is short, and reclaim works |
//! | many | many | few | it thrashes |
//! | many | few | | a limit inside the guest is reached: more memory would not help |
//!
//! A process that was killed for lack of memory is critical, whatever the other counters are. Older guests do not
//! count stalls: if next to nothing is available and pages come back from swap or disk, that means the same.

use crate::observation::memory::Counters;
use crate::rules::{Rule, Rules};
use serde::{Deserialize, Serialize};

/// Stalls between two samples that mean something.
const STALLS_MIN: u64 = 16;
/// Pages that are scanned in a stall of the whole guest, at least: one batch of reclaim (`SWAP_CLUSTER_MAX`).
const SCANS_PER_STALL: u64 = 32;
/// If less than this part of the scanned pages is reclaimed, the guest thrashes.
const RECLAIMED_PART: u64 = 8;
/// Major faults between two samples that mean something, for guests that do not count stalls.
const FAULTS_MIN: u64 = 256;

/// How short of memory a guest is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stress {
    /// It is not short of memory.
    #[default]
    None,
    /// A limit inside the guest is reached; the guest is not short.
    OwnLimit,
    /// It reclaims, and finds pages.
    Reclaims,
    /// It reclaims, and finds next to no pages.
    Thrashes,
    /// It killed a process for lack of memory.
    Kills,
}

impl Stress {
    /// True if more memory would help.
    #[must_use]
    pub fn is_short(self) -> bool {
        matches!(self, Self::Reclaims | Self::Thrashes | Self::Kills)
    }
}

/// How short of memory a guest was between two samples. `scarce`: next to nothing is available.
#[must_use]
pub fn decode(before: &Counters, now: &Counters, scarce: bool, rules: Rules) -> Stress {
    let grew = |of: fn(&Counters) -> u64| of(now).saturating_sub(of(before));
    let (stalls, scans) = (grew(|c| c.alloc_stalls), grew(|c| c.direct_scans));
    if !rules.has(Rule::GuestPressure) {
        return Stress::None;
    }
    if grew(|c| c.oom_kills) > 0 && scarce {
        return Stress::Kills;
    }
    if stalls >= STALLS_MIN {
        if scans < stalls.saturating_mul(SCANS_PER_STALL) && rules.has(Rule::OwnLimits) {
            return Stress::OwnLimit;
        }
        let works = grew(|c| c.direct_reclaims) >= scans / RECLAIMED_PART;
        return if works { Stress::Reclaims } else { Stress::Thrashes };
    }
    if scarce && (grew(|c| c.major_faults) >= FAULTS_MIN || grew(|c| c.swap_in_bytes) > 0) {
        return Stress::Thrashes;
    }
    Stress::None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(stalls: u64, scans: u64, reclaimed: u64) -> Counters {
        Counters {
            alloc_stalls: stalls,
            direct_scans: scans,
            direct_reclaims: reclaimed,
            ..Default::default()
        }
    }

    #[test]
    fn counters_are_decoded_as_the_kernel_documents_them() {
        let before = Counters::default();
        let of = |now: &Counters, scarce| decode(&before, now, scarce, Rules::default());
        assert_eq!(of(&counters(100, 10_000, 8_000), false), Stress::Reclaims);
        assert_eq!(of(&counters(100, 10_000, 10), false), Stress::Thrashes);
        assert_eq!(of(&counters(100, 10, 10), false), Stress::OwnLimit);
        assert_eq!(of(&counters(3, 10_000, 10), false), Stress::None);
        let killed = Counters { oom_kills: 1, ..before };
        assert_eq!(of(&killed, true), Stress::Kills);
        assert_eq!(of(&killed, false), Stress::None, "a limit inside the guest kills processes as well");
        let faults = Counters { major_faults: 1000, ..before };
        assert_eq!((of(&faults, true), of(&faults, false)), (Stress::Thrashes, Stress::None));
    }

    #[test]
    fn a_guest_that_was_reset_counts_from_zero_and_is_not_short() {
        let before = counters(1000, 100_000, 10);
        assert_eq!(decode(&before, &Counters::default(), false, Rules::default()), Stress::None);
    }
}
