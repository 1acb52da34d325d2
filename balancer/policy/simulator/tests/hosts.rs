//! A thousand simulated hosts under the policy: what must hold holds at every tick.
//!
//! In the thousand hosts a tick is five seconds (720 in an hour), in thirty more it is a second, the default. The
//! comparison of `docs/policy.md` has ticks of a second throughout.

use simulator::{Settings, simulate};
use std::sync::atomic::{AtomicU64, Ordering};

const HOUR_MS: u64 = 3_600_000;

/// Runs seeds on all processors; panics with the violations of the first few that fail. Returns the number of ticks
/// at rest.
fn seeds(range: std::ops::Range<u64>, guests: usize, length_ms: u64, interval_ms: u64) -> u64 {
    let next = AtomicU64::new(range.start);
    let failures = std::sync::Mutex::new(vec![]);
    let rest = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    let outcome = simulate(&Settings { seed, guests, length_ms, interval_ms });
                    rest.fetch_add(outcome.figures.ticks_at_rest, Ordering::Relaxed);
                    if outcome.violations > 0 {
                        failures.lock().expect("no thread panics").push(outcome);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no thread panics");
    let count = failures.len();
    for outcome in failures.iter().take(5) {
        eprintln!("seed {}: {} violations", outcome.seed, outcome.violations);
        outcome
            .first_violations
            .iter()
            .for_each(|v| eprintln!("  {} s: {}: {}", v.at_ms / 1000, v.invariant, v.detail));
    }
    assert_eq!(count, 0, "seeds of {range:?} fail: balancer simulate --seed N shows one");
    rest.into_inner()
}

#[test]
fn a_thousand_hosts_for_an_hour() {
    // A tick of five seconds, 720 in an hour: what holds at every tick does not depend on its length.
    let at_rest = seeds(0..1000, 200, HOUR_MS, 5000);
    assert!(at_rest > 1000, "little ever came to rest: {at_rest} ticks");
}

#[test]
fn thirty_hosts_with_ticks_of_a_second() {
    let at_rest = seeds(5000..5030, 200, HOUR_MS, 1000);
    assert!(at_rest > 1000, "little ever came to rest: {at_rest} ticks");
}

#[test]
fn a_host_with_thousands_of_guests() {
    seeds(9000..9001, 4000, 600_000, 1000);
}
