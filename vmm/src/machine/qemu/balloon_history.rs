//! The size of the balloon when a guest took a sample of its statistics: the guest counts the balloon as used, and
//! the balancer must not.
//!
//! QEMU reports the second in which it got a sample, and reports a moving balloon once a second. So while a balloon
//! moves, only a range of its size at the sample is known. Of this range the size is taken that leaves the used
//! memory nearest to the last one: a balloon that moves changes the available memory, not the used memory.
//!
//! ```text
//!   balloon, reported ---100----|--------------300--------   MiB
//!   sample                 |<- some time here ->| received  700 not available, 590 used before
//!                          used: between 400 and 600            -> 110 in the balloon
//! ```

use protocol::message::Statistics;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Sizes that are kept at most: more than QEMU reports while a sample is fresh.
const SIZES_MAX: usize = 16;

/// The size of a balloon, and its recent sizes.
#[derive(Debug)]
pub(super) struct BalloonHistory {
    now_bytes: u64,
    /// Earlier sizes, and until when each was the last one reported.
    before: VecDeque<(Instant, u64)>,
    used_bytes: Option<u64>,
}

impl BalloonHistory {
    /// The first size.
    pub(super) fn new(bytes: u64) -> Self {
        Self { now_bytes: bytes, before: VecDeque::new(), used_bytes: None }
    }

    /// QEMU reported another size.
    pub(super) fn moved(&mut self, bytes: u64, now: Instant) {
        if self.before.len() == SIZES_MAX {
            self.before.pop_front();
        }
        self.before.push_back((now, self.now_bytes));
        self.now_bytes = bytes;
    }

    /// Its size when this sample was taken, bytes.
    pub(super) fn at(&mut self, sample: &Statistics, now: Instant) -> u64 {
        let age = Duration::from_millis(sample.age_ms);
        let later = self.before.iter().filter(|(until, _)| now.saturating_duration_since(*until) <= age);
        let (least, most) =
            later.map(|(_, bytes)| *bytes).fold((self.now_bytes, self.now_bytes), |(least, most), bytes| {
                (least.min(bytes), most.max(bytes))
            });
        let (Some(total), Some(available)) = (sample.total_memory_bytes, sample.available_memory_bytes)
        else {
            return self.now_bytes;
        };
        let taken = total.saturating_sub(available);
        let bytes = self.used_bytes.map_or(least, |used| taken.saturating_sub(used).clamp(least, most));
        self.used_bytes = Some(taken.saturating_sub(bytes));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Used memory of a guest that has 470 MiB, in MiB and milliseconds.
    fn used(history: &mut BalloonHistory, available: u64, age_ms: u64, now: Instant) -> u64 {
        let sample = Statistics {
            total_memory_bytes: Some(470 * MIB),
            available_memory_bytes: Some(available * MIB),
            age_ms,
            ..Statistics::default()
        };
        470 - available - history.at(&sample, now) / MIB
    }

    #[test]
    fn a_balloon_that_moves_does_not_change_the_used_memory() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut history = BalloonHistory::new(73 * MIB);
        assert_eq!(used(&mut history, 271, 900, at(0)), 126);
        history.moved(332 * MIB, at(1000));
        // The sample was taken before, during and after the move.
        assert_eq!(used(&mut history, 271, 1500, at(1200)), 126);
        assert_eq!(used(&mut history, 138, 1500, at(1300)), 126);
        assert_eq!(used(&mut history, 12, 900, at(2500)), 126);
        history.moved(73 * MIB, at(3000));
        assert_eq!(used(&mut history, 12, 1500, at(3100)), 126);
    }

    #[test]
    fn memory_that_a_guest_must_use_at_every_possible_balloon_size_counts_at_once() {
        let start = Instant::now();
        let mut history = BalloonHistory::new(300 * MIB);
        assert_eq!(used(&mut history, 70, 900, start), 100);
        history.moved(100 * MIB, start + Duration::from_millis(1000));
        // The balloon deflated by 200 MiB, and the guest uses at least some of them.
        assert_eq!(used(&mut history, 20, 1500, start + Duration::from_millis(1100)), 150);
        // Once the balloon does not move, its size is known.
        assert_eq!(used(&mut history, 20, 900, start + Duration::from_millis(2500)), 350);
        history.moved(200 * MIB, start + Duration::from_millis(2600));
        assert_eq!(used(&mut history, 200, 1500, start + Duration::from_millis(2700)), 170);
    }

    #[test]
    fn the_first_sample_assumes_a_small_balloon_and_a_sample_without_figures_the_current_one() {
        let now = Instant::now();
        let mut history = BalloonHistory::new(0);
        for size in 1..100 {
            history.moved(size * MIB, now);
        }
        assert!(history.before.len() <= SIZES_MAX);
        assert_eq!(history.at(&Statistics::default(), now), 99 * MIB);
        assert_eq!(used(&mut history, 300, 0, now), 170 - (99 - SIZES_MAX as u64));
    }
}
