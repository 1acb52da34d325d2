//! Recent targets of a guest. A guest that holds more than its target was out of memory, or is still moving towards it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Targets recent enough that the guest may still be moving towards them: QEMU reports balloon changes once a second.
const RECENT: Duration = Duration::from_secs(3);

/// Targets of a guest.
#[derive(Debug)]
pub(super) struct Targets {
    now_bytes: u64,
    /// Earlier targets, and until when each of them held.
    before: VecDeque<(Instant, u64)>,
}

impl Targets {
    /// The first target.
    pub(super) fn new(bytes: u64) -> Self {
        Self { now_bytes: bytes, before: VecDeque::new() }
    }

    /// The target.
    pub(super) fn bytes(&self) -> u64 {
        self.now_bytes
    }

    /// Another target from now on.
    pub(super) fn set(&mut self, bytes: u64, now: Instant) {
        self.forget(now);
        self.before.push_back((now, self.now_bytes));
        self.now_bytes = bytes;
    }

    /// True if a guest deflated its balloon without being asked to: what it holds rose above all recent targets.
    pub(super) fn is_out_of_memory(&mut self, before_bytes: u64, bytes: u64, now: Instant) -> bool {
        self.forget(now);
        let allowed = self.before.iter().map(|(_, bytes)| *bytes).fold(self.now_bytes, u64::max);
        bytes > before_bytes && bytes > allowed
    }

    fn forget(&mut self, now: Instant) {
        while self.before.front().is_some_and(|(until, _)| now.saturating_duration_since(*until) > RECENT) {
            self.before.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_out_of_memory_if_it_rises_above_all_recent_targets_and_not_while_it_moves_towards_one() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut targets = Targets::new(512);
        targets.set(200, at(0));
        // It inflates: it falls, though it is above its target.
        assert!(
            !targets.is_out_of_memory(512, 400, at(1000)) && !targets.is_out_of_memory(400, 210, at(5000))
        );
        // It deflates by itself.
        assert!(targets.is_out_of_memory(210, 240, at(6000)));
        assert_eq!(targets.bytes(), 200);
        // Its target was raised, and is lowered while it still rises.
        targets.set(400, at(10_000));
        assert!(!targets.is_out_of_memory(200, 350, at(11_000)));
        targets.set(250, at(11_500));
        assert!(!targets.is_out_of_memory(350, 380, at(12_000)));
        assert!(targets.is_out_of_memory(380, 385, at(15_000)));
    }
}
