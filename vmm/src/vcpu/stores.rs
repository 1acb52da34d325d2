//! Stores of a guest into its images: dropped, counted, and in a storm a reason to end the guest (I2).
//!
//! Images are read-only for the guest, so an honest one stores there by mistake at most. Each store costs the host an
//! exit, which a hostile guest can cause without end:
//!
//! ```text
//!   the first STORES_FREE at once are dropped, and one more every 1/STORES_PER_SECOND s
//!   beyond that the vCPU waits for its turn: it has no more than STORES_PER_SECOND
//!   after SLOWED_MAX that had to wait, with no quiet between them, the guest ends
//! ```
//!
//! No other guest waits: a vCPU is a thread of this guest's own `vmm`.

use protocol::token_bucket::TokenBucket;
use std::time::{Duration, Instant};

/// Stores that may come at once: a page, written byte by byte.
pub const STORES_FREE: u32 = 4096;
/// Stores per second that may go on for ever.
pub const STORES_PER_SECOND: u32 = 256;
/// Stores that had to wait, without a time of quiet that earned [`STORES_FREE`] again, until the guest ends: two
/// seconds.
pub const SLOWED_MAX: u32 = 512;

/// The consequence of a store. The store is dropped in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The guest runs on.
    Drop,
    /// The vCPU waits first.
    Slow(Duration),
    /// The guest ends.
    End,
}

/// Stores of one guest, all of its vCPUs together.
#[derive(Debug)]
pub struct Stores {
    bucket: TokenBucket,
    slowed: u32,
    count: u64,
}

impl Stores {
    /// None yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let bucket = TokenBucket::full(STORES_PER_SECOND.into(), STORES_FREE.into(), now);
        Self { bucket, slowed: 0, count: 0 }
    }

    /// Stores so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// One more.
    pub fn store(&mut self, now: Instant) -> Verdict {
        self.count += 1;
        if self.bucket.is_full(now) {
            self.slowed = 0;
        }
        self.bucket.spend(1);
        let wait = self.bucket.wait(now);
        if wait.is_zero() {
            return Verdict::Drop;
        }
        self.slowed += 1;
        if self.slowed > SLOWED_MAX { Verdict::End } else { Verdict::Slow(wait) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn i2_a_storm_is_slowed_and_then_the_guest_ends() {
        let start = Instant::now();
        let (mut stores, mut now) = (Stores::new(start), start);
        for _ in 0..STORES_FREE {
            assert_eq!(stores.store(now), Verdict::Drop);
        }
        let mut slowed = 0;
        loop {
            match stores.store(now) {
                Verdict::Slow(wait) => now += wait,
                Verdict::End => break,
                Verdict::Drop => panic!("a storm that does not stop is slowed"),
            }
            slowed += 1;
        }
        assert_eq!(slowed, SLOWED_MAX);
        assert_eq!(stores.count(), u64::from(STORES_FREE + SLOWED_MAX + 1));
        let took = (now - start).as_secs_f64();
        assert!((1.9..2.1).contains(&took), "{took}");
    }

    #[test]
    fn a_guest_that_stores_now_and_then_runs_for_ever() {
        let start = Instant::now();
        let mut stores = Stores::new(start);
        // A page a minute, byte by byte, for a day.
        for minute in 0..1440 {
            let now = start + Duration::from_secs(60 * minute);
            assert!((0..STORES_FREE).all(|_| stores.store(now) == Verdict::Drop), "minute {minute}");
        }
    }

    proptest! {
        /// Whatever the pattern is: no more stores in a time than were free and than that time earns, until the guest
        /// ends.
        #[test]
        fn the_rate_holds(pauses in prop::collection::vec(0u64..2_000_000, 1..12_000)) {
            let start = Instant::now();
            let (mut stores, mut now) = (Stores::new(start), start);
            for pause in pauses {
                now += Duration::from_nanos(pause);
                match stores.store(now) {
                    Verdict::Drop => {}
                    Verdict::Slow(wait) => now += wait,
                    Verdict::End => break,
                }
                let earned = (now - start).as_secs_f64() * f64::from(STORES_PER_SECOND);
                prop_assert!(stores.count() as f64 <= f64::from(STORES_FREE) + earned + 1.0);
            }
        }
    }
}
