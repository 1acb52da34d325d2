//! The limit of a guest without a balancer, enforced by this process alone.

use super::machine::Machine;
use std::io;
use std::time::Duration;
use vmm_sys_util::timerfd::TimerFd;

/// How long a guest without a balancer keeps memory that it took because it was out of memory: as long as a balancer
/// lets it. The time doubles each time, up to the second value, so that a guest that cannot live inside its
/// limit is not made to give and take for ever.
const HOLD_MIN: Duration = Duration::from_secs(30);
const HOLD_MAX: Duration = Duration::from_secs(600);
/// A target that would move by less stays. Bytes.
const CHANGE_BYTES_MIN: u64 = 1 << 20;

/// The limit of a guest without a balancer.
#[derive(Debug)]
pub(super) struct StandaloneLimit {
    ceiling_bytes: u64,
    /// What the guest needs to boot and live: no target goes below it.
    floor_bytes: u64,
    /// How long the guest keeps what it takes next.
    hold: Duration,
    /// The target is set again however little it moves: at first, and after the guest was out of memory.
    is_due: bool,
    /// Expires when the target is to be computed again.
    pub(super) timer: TimerFd,
}

impl StandaloneLimit {
    /// A limit for guest RAM and the overhead of its machine.
    ///
    /// # Errors
    /// When the system has no timer.
    pub(super) fn new(ceiling_bytes: u64, floor_bytes: u64) -> io::Result<Self> {
        let timer = TimerFd::new()?;
        Ok(Self { ceiling_bytes, floor_bytes, hold: HOLD_MIN, is_due: true, timer })
    }

    /// The timer expired: asks the guest for its limit, and sets the timer for the next time.
    pub(super) fn enforce<M: Machine>(&mut self, machine: &mut M) {
        let ceiling_bytes = self.ceiling_bytes.saturating_sub(machine.overhead_bytes());
        let target_bytes = ceiling_bytes.max(self.floor_bytes).min(machine.ram_bytes());
        let change_bytes = target_bytes.abs_diff(machine.balloon().target_bytes);
        if std::mem::take(&mut self.is_due) || change_bytes >= CHANGE_BYTES_MIN {
            machine.set_target(target_bytes);
        }
        if let Some(interval) = M::OVERHEAD_INTERVAL {
            self.wait(interval);
        }
    }

    /// The guest was out of memory: it keeps what it took for a while.
    pub(super) fn hold(&mut self) {
        self.is_due = true;
        self.wait(self.hold);
        self.hold = (self.hold * 2).min(HOLD_MAX);
    }

    fn wait(&mut self, time: Duration) {
        if let Err(error) = self.timer.reset(time, None) {
            tracing::error!(?error, "Cannot set the timer of the limit, which is not enforced again");
        }
    }
}

#[cfg(test)]
impl StandaloneLimit {
    /// How long the guest keeps what it takes next.
    pub(super) fn hold_next(&self) -> Duration {
        self.hold
    }
}
