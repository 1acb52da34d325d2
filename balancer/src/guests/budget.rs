//! How much a guest may make the balancer say of it. A guest out of its mind, or a `vmm` that lies, would otherwise push the events of
//! all others out of the ring and fill the disk with the log.

use std::time::{Duration, Instant};

/// Events at once.
const BURST: u32 = 64;
/// One more each.
const REFILL: Duration = Duration::from_millis(250);

/// Events that a guest may still cause, and those that it caused in vain.
#[derive(Debug)]
pub struct Budget {
    left: u32,
    at: Instant,
    dropped: u64,
}

impl Budget {
    /// A full budget.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { left: BURST, at: now, dropped: 0 }
    }

    /// Takes one event. `None` when none is left; else how many were dropped since the last one that was not.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        let gained =
            u32::try_from(now.duration_since(self.at).as_millis() / REFILL.as_millis()).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(gained).min(BURST);
        // What is not enough for one more counts on.
        self.at = if self.left == BURST { now } else { self.at + REFILL * gained };
        if self.left == 0 {
            self.dropped += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_trickle() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let taken = (0..1000).filter(|_| budget.take(start).is_some()).count();
        assert_eq!(taken, BURST as usize);
        let soon = start + REFILL * 3 + REFILL / 2;
        assert_eq!(budget.take(soon), Some(1000 - u64::from(BURST)));
        assert_eq!((budget.take(soon), budget.take(soon), budget.take(soon)), (Some(0), Some(0), None));
        assert_eq!(budget.take(soon + REFILL / 2), Some(1), "halves add up");
        let later = start + Duration::from_secs(1 << 40);
        assert_eq!((0..1000).filter(|_| budget.take(later).is_some()).count(), BURST as usize);
    }
}
