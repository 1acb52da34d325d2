//! Rate limit for the CPU time of scans: a share of one CPU, whatever the work costs.
//!
//! The guests of a host share its CPU time for scans. The balancer sends each `vmm` its share, and sends it again
//! when guests come or go; a `vmm` without a balancer takes all of it.

use protocol::message::RECONCILE_CPU_PPM;
use std::time::{Duration, Instant};

/// Longest time for which unused CPU time is saved: a guest that was quiet may be scanned at once.
const BURST: Duration = Duration::from_secs(10);

/// A rate limit of CPU time: its tokens are nanoseconds of CPU.
#[derive(Debug)]
pub struct TokenBucket {
    share_ppm: u32,
    cpu_ns: protocol::token_bucket::TokenBucket,
}

impl TokenBucket {
    /// The whole share of the host; nothing is saved yet, and nothing is owed.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let (rate, burst) = rate(RECONCILE_CPU_PPM);
        let cpu_ns = protocol::token_bucket::TokenBucket::empty(rate, burst, now);
        Self { share_ppm: RECONCILE_CPU_PPM, cpu_ns }
    }

    /// Another share from now on. A debt stays. A share of 0 means the smallest one.
    pub fn set_share(&mut self, share_ppm: u32, now: Instant) {
        self.share_ppm = share_ppm.clamp(1, RECONCILE_CPU_PPM);
        let (rate, burst) = rate(self.share_ppm);
        self.cpu_ns.set_rate(rate, burst, now);
    }

    /// True if an expensive piece of work may begin. It may cost more than the balance, and then the next one waits
    /// longer.
    pub fn is_open(&mut self, now: Instant) -> bool {
        self.opens_in(now).is_zero()
    }

    /// How long until such work may begin.
    pub fn opens_in(&mut self, now: Instant) -> Duration {
        self.cpu_ns.wait(now)
    }

    /// Takes CPU time that was used.
    pub fn spend(&mut self, cpu: Duration) {
        self.cpu_ns.spend(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX));
    }

    /// How long to wait between two cheap pieces of work, so that they take at most half of the share.
    #[must_use]
    pub fn pause_after(&self, cpu: Duration, least: Duration) -> Duration {
        let nanos = cpu.as_nanos() * 2 * 1_000_000 / u128::from(self.share_ppm);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).max(least)
    }
}

/// Nanoseconds of CPU in each second at a share, and those that are saved at most.
fn rate(share_ppm: u32) -> (u64, u64) {
    let rate = u64::from(share_ppm) * 1000;
    (rate, rate * BURST.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn work_that_costs_more_than_the_balance_delays_the_next_work() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(start);
        assert!(bucket.is_open(start), "the first scan is free");
        bucket.spend(Duration::from_millis(5));
        // 5 ms at 1 % of a CPU are half a second.
        assert_eq!(bucket.opens_in(start), Duration::from_millis(500));
        assert!(!bucket.is_open(start + Duration::from_millis(499)));
        assert!(bucket.is_open(start + Duration::from_millis(500)));
        assert_eq!(bucket.opens_in(start + Duration::from_millis(500)), Duration::ZERO);
        bucket.spend(Duration::from_millis(5));
        bucket.set_share(100, start + Duration::from_millis(500));
        assert!(!bucket.is_open(start + Duration::from_secs(50)), "at 100 ppm they are 50 s");
        assert!(bucket.is_open(start + Duration::from_millis(50_500)));
        assert_eq!(
            bucket.pause_after(Duration::from_micros(10), Duration::from_secs(1)),
            Duration::from_secs(1)
        );
        assert_eq!(
            bucket.pause_after(Duration::from_millis(1), Duration::from_secs(1)),
            Duration::from_secs(20),
            "at most half of 100 ppm"
        );
    }

    proptest! {
        /// Whatever the costs and the shares are, work that waits for the bucket stays within the largest share,
        /// except for saved time and the last piece of work.
        #[test]
        fn the_share_holds(steps in prop::collection::vec((0u64..3000, 0u64..20_000, 0u32..20_000), 1..200)) {
            let start = Instant::now();
            let (mut bucket, mut now) = (TokenBucket::new(start), start);
            let (mut used, mut last) = (Duration::ZERO, Duration::ZERO);
            for (wait_ms, cost_us, share_ppm) in steps {
                now += Duration::from_millis(wait_ms);
                bucket.set_share(share_ppm, now);
                if bucket.is_open(now) {
                    last = Duration::from_micros(cost_us);
                    used += last;
                    bucket.spend(last);
                }
            }
            let most = (now - start + BURST).as_nanos() * u128::from(RECONCILE_CPU_PPM) / 1_000_000;
            prop_assert!(used.as_nanos() <= most + last.as_nanos(), "{used:?} in {:?}", now - start);
        }
    }
}
