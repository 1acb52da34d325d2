//! What a guest was asked to hold, now and of late: who holds more than it may was out of memory, or is still on its way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a guest was allowed to hold so lately it may still be on its way to: QEMU tells of a balloon that moves once a second.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// Targets of a guest.
#[derive(Debug)]
pub(super) struct Targets {
    now_bytes: u64,
    /// Earlier ones, and until when each was the target.
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

    /// True if a guest took memory back that nobody offered: what it holds rose, above all that it was allowed of late.
    pub(super) fn is_in_need(&mut self, before_bytes: u64, bytes: u64, now: Instant) -> bool {
        self.forget(now);
        let allowed = self.before.iter().map(|(_, bytes)| *bytes).fold(self.now_bytes, u64::max);
        bytes > before_bytes && bytes > allowed
    }

    fn forget(&mut self, now: Instant) {
        while self.before.front().is_some_and(|(until, _)| now.saturating_duration_since(*until) > ON_ITS_WAY)
        {
            self.before.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_on_its_way_is_not_in_need_and_one_that_rises_above_all_it_was_allowed_is() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut targets = Targets::new(512);
        targets.set(200, at(0));
        // It gives: falling, though above its target.
        assert!(!targets.is_in_need(512, 400, at(1000)) && !targets.is_in_need(400, 210, at(5000)));
        // It takes back what it gave.
        assert!(targets.is_in_need(210, 240, at(6000)));
        assert_eq!(targets.bytes(), 200);
        // It was let have more, and that is taken back while it still rises.
        targets.set(400, at(10_000));
        assert!(!targets.is_in_need(200, 350, at(11_000)));
        targets.set(250, at(11_500));
        assert!(!targets.is_in_need(350, 380, at(12_000)));
        assert!(targets.is_in_need(380, 385, at(15_000)));
    }
}
