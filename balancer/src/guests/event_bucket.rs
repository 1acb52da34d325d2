//! How many events a guest may cause. A guest that fails again and again, or a `vmm` that lies, would otherwise push
//! the events of all others out of the ring and fill the disk with the log.

use protocol::token_bucket::TokenBucket;
use std::time::Instant;

/// Events at once.
const BURST: u64 = 64;
/// Events in each second.
const RATE: u64 = 4;

/// Events that a guest may still cause, and the number of those that were dropped.
#[derive(Debug)]
pub struct EventBucket {
    events: TokenBucket,
    dropped: u64,
}

impl EventBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { events: TokenBucket::full(RATE, BURST, now), dropped: 0 }
    }

    /// Takes one event. `None` when none is left; else how many were dropped since the last one that was not.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        if self.events.take(now).is_err() {
            self.dropped += 1;
            return None;
        }
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_and_then_a_trickle() {
        let start = Instant::now();
        let mut bucket = EventBucket::new(start);
        let taken = (0..1000).filter(|_| bucket.take(start).is_some()).count();
        assert_eq!(taken, BURST as usize);
        const REFILL: Duration = Duration::from_millis(250);
        let soon = start + REFILL * 3 + REFILL / 2;
        assert_eq!(bucket.take(soon), Some(1000 - BURST));
        assert_eq!((bucket.take(soon), bucket.take(soon), bucket.take(soon)), (Some(0), Some(0), None));
        assert_eq!(bucket.take(soon + REFILL / 2), Some(1), "halves add up");
        let later = start + Duration::from_secs(1 << 40);
        assert_eq!((0..1000).filter(|_| bucket.take(later).is_some()).count(), BURST as usize);
    }
}
