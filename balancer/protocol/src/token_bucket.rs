//! A rate limit: tokens come at a constant rate, unused ones are saved up to a bound, and one event takes one or more
//! of them.
//!
//! ```text
//!   balance   burst ---------------\      full: more time earns nothing
//!                                   \___/-- 0: `take` is refused; `spend` goes on into debt, and `wait` says how long
//!                                   it lasts
//! ```

use std::time::{Duration, Instant};

const NANOS: i128 = 1_000_000_000;

/// A rate limit.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    per_second: u64,
    burst: u64,
    /// Billionths of a token; negative for a debt.
    balance: i128,
    at: Instant,
}

impl TokenBucket {
    /// A bucket that has its whole burst.
    #[must_use]
    pub fn full(per_second: u64, burst: u64, now: Instant) -> Self {
        Self { balance: i128::from(burst) * NANOS, ..Self::empty(per_second, burst, now) }
    }

    /// A bucket without a token, and without a debt. At least one token comes per second.
    #[must_use]
    pub fn empty(per_second: u64, burst: u64, now: Instant) -> Self {
        Self { per_second: per_second.max(1), burst, balance: 0, at: now }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// When there is none: how long until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.earn(now);
        if self.balance < NANOS {
            return Err(self.time_for(NANOS - self.balance));
        }
        self.balance -= NANOS;
        Ok(())
    }

    /// Takes tokens, whether they are there or not.
    pub fn spend(&mut self, tokens: u64) {
        self.balance -= i128::from(tokens) * NANOS;
    }

    /// How long until no token is owed; zero if there is no debt.
    pub fn wait(&mut self, now: Instant) -> Duration {
        self.earn(now);
        self.time_for(-self.balance)
    }

    /// True if nothing was taken that did not come again since.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.earn(now);
        self.balance == i128::from(self.burst) * NANOS
    }

    /// Another rate and burst from now on. A debt stays, in tokens; savings beyond the new burst are lost.
    pub fn set_rate(&mut self, per_second: u64, burst: u64, now: Instant) {
        self.earn(now);
        (self.per_second, self.burst) = (per_second.max(1), burst);
        self.earn(now);
    }

    fn earn(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        let earned = elapsed.saturating_mul(u128::from(self.per_second));
        let sum = self.balance.saturating_add(i128::try_from(earned).unwrap_or(i128::MAX));
        self.balance = sum.min(i128::from(self.burst) * NANOS);
        self.at = self.at.max(now);
    }

    fn time_for(&self, missing: i128) -> Duration {
        let nanos = missing.max(0).unsigned_abs().div_ceil(u128::from(self.per_second));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_is_followed_by_one_token_at_a_time() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(4, 64, start);
        assert_eq!((0..1000).filter(|_| bucket.take(start).is_ok()).count(), 64);
        assert_eq!(bucket.take(start), Err(Duration::from_millis(250)));
        let half = start + Duration::from_millis(125);
        assert_eq!(bucket.take(half), Err(Duration::from_millis(125)));
        assert_eq!(bucket.take(half + Duration::from_millis(125)), Ok(()), "halves add up");
        let later = start + Duration::from_secs(1 << 40);
        assert!(bucket.is_full(later));
        assert_eq!((0..1000).filter(|_| bucket.take(later).is_ok()).count(), 64);
    }

    #[test]
    fn a_debt_is_waited_for_and_stays_when_the_rate_changes() {
        let start = Instant::now();
        let mut bucket = TokenBucket::empty(1000, 10_000, start);
        assert_eq!(bucket.wait(start), Duration::ZERO);
        bucket.spend(500);
        assert_eq!(bucket.wait(start), Duration::from_millis(500));
        assert_eq!(bucket.wait(start + Duration::from_millis(499)), Duration::from_millis(1));
        bucket.set_rate(10, 100, start);
        assert_eq!(bucket.wait(start + Duration::from_millis(499)), Duration::from_millis(100));
        // The rate is at least one token per second, and savings beyond the new burst are lost.
        bucket.set_rate(0, 3, start + Duration::from_secs(10));
        let later = start + Duration::from_secs(100);
        assert!(bucket.is_full(later));
        bucket.spend(4);
        assert_eq!(bucket.wait(later), Duration::from_secs(1));
    }

    proptest! {
        /// Whatever the pattern: no more tokens are taken in a time than the burst and those that came in it.
        #[test]
        fn the_rate_holds(
            pauses in prop::collection::vec(0u64..400, 1..300),
            per_second in 1u64..50,
            burst in 0u64..20,
        ) {
            let start = Instant::now();
            let (mut bucket, mut now, mut taken) = (TokenBucket::full(per_second, burst, start), start, 0u64);
            for pause in pauses {
                now += Duration::from_millis(pause);
                if let Err(wait) = bucket.take(now) {
                    if burst > 0 {
                        now += wait;
                        prop_assert_eq!(bucket.take(now), Ok(()), "the wait is long enough");
                        taken += 1;
                    }
                } else {
                    taken += 1;
                }
            }
            let earned = (now - start).as_secs_f64() * per_second as f64;
            prop_assert!(taken as f64 <= burst as f64 + earned + 1e-6);
        }
    }
}
