//! What was in the balloon when a guest took a sample of its statistics: it counts that as used, and the balancer must not.
//!
//! QEMU tells the second in which it got a sample, and of a balloon that moves once a second. So of a guest whose balloon moves
//! all that is known is between what, and the nearest to what the guest used before is taken: a balloon that moves changes what
//! is available, not what is used.
//!
//! ```text
//!   balloon, heard   ----100----|--------------300--------   MiB
//!   sample                 |<- some time here ->| told      700 not available, 590 used before
//!                          used: between 400 and 600            -> 110 in the balloon
//! ```

use protocol::message::Statistics;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Sizes that are kept at most: more than are heard while a sample is fresh.
const SIZES_MAX: usize = 16;

/// Sizes of a balloon, now and of late.
#[derive(Debug)]
pub(super) struct Ballooned {
    now_bytes: u64,
    /// Earlier ones, and until when each was the last that was heard.
    before: VecDeque<(Instant, u64)>,
    used_bytes: Option<u64>,
}

impl Ballooned {
    /// The first size.
    pub(super) fn new(bytes: u64) -> Self {
        Self { now_bytes: bytes, before: VecDeque::new(), used_bytes: None }
    }

    /// It was heard to have another size.
    pub(super) fn moved(&mut self, bytes: u64, now: Instant) {
        if self.before.len() == SIZES_MAX {
            self.before.pop_front();
        }
        self.before.push_back((now, self.now_bytes));
        self.now_bytes = bytes;
    }

    /// What was in it when this sample was taken, bytes.
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

    /// Of a guest that has 470 MiB, in MiB and milliseconds.
    fn used(ballooned: &mut Ballooned, available: u64, age_ms: u64, now: Instant) -> u64 {
        let sample = Statistics {
            total_memory_bytes: Some(470 * MIB),
            available_memory_bytes: Some(available * MIB),
            age_ms,
            ..Statistics::default()
        };
        470 - available - ballooned.at(&sample, now) / MIB
    }

    #[test]
    fn a_balloon_that_moves_does_not_change_what_a_guest_uses() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut ballooned = Ballooned::new(73 * MIB);
        assert_eq!(used(&mut ballooned, 271, 900, at(0)), 126);
        ballooned.moved(332 * MIB, at(1000));
        // The sample is of before, of the middle and of after.
        assert_eq!(used(&mut ballooned, 271, 1500, at(1200)), 126);
        assert_eq!(used(&mut ballooned, 138, 1500, at(1300)), 126);
        assert_eq!(used(&mut ballooned, 12, 900, at(2500)), 126);
        ballooned.moved(73 * MIB, at(3000));
        assert_eq!(used(&mut ballooned, 12, 1500, at(3100)), 126);
    }

    #[test]
    fn what_a_guest_must_use_wherever_its_balloon_was_is_told_at_once() {
        let start = Instant::now();
        let mut ballooned = Ballooned::new(300 * MIB);
        assert_eq!(used(&mut ballooned, 70, 900, start), 100);
        ballooned.moved(100 * MIB, start + Duration::from_millis(1000));
        // It was let have 200 MiB, and uses at least some of them.
        assert_eq!(used(&mut ballooned, 20, 1500, start + Duration::from_millis(1100)), 150);
        // Once the balloon stands still there is no doubt.
        assert_eq!(used(&mut ballooned, 20, 900, start + Duration::from_millis(2500)), 350);
        ballooned.moved(200 * MIB, start + Duration::from_millis(2600));
        assert_eq!(used(&mut ballooned, 200, 1500, start + Duration::from_millis(2700)), 170);
    }

    #[test]
    fn a_first_sample_takes_the_balloon_for_small_and_a_guest_that_tells_nothing_has_it_as_it_is() {
        let now = Instant::now();
        let mut ballooned = Ballooned::new(0);
        for size in 1..100 {
            ballooned.moved(size * MIB, now);
        }
        assert!(ballooned.before.len() <= SIZES_MAX);
        assert_eq!(ballooned.at(&Statistics::default(), now), 99 * MIB);
        assert_eq!(used(&mut ballooned, 300, 0, now), 170 - (99 - SIZES_MAX as u64));
    }
}
