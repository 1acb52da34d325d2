//! The host as it was read last, and since when this balancer runs.

use crate::guests::age_ms;
use host::meminfo::{HostMemory, HostSample};
use policy::HostView;
use std::time::{Duration, Instant};

/// Containers that were made for a guest wait for it this long after a restart.
const SWEEP_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(in crate::state) struct HostState {
    sample: HostSample,
    /// When tasks of the host last stalled for memory.
    stalled_at: Option<Instant>,
    started_at: Instant,
    /// True until containers without guests, left over from before a restart, were removed.
    sweep_due: bool,
}

impl HostState {
    pub(in crate::state) fn new(sample: HostSample, now: Instant) -> Self {
        Self { sample, stalled_at: None, started_at: now, sweep_due: true }
    }

    /// Takes a sample into account, unless a newer one is there already. True if it did.
    pub(in crate::state) fn take(&mut self, sample: HostSample) -> bool {
        let is_newer = sample.at >= self.sample.at;
        if is_newer {
            self.sample = sample;
        }
        is_newer
    }

    pub(in crate::state) fn memory(&self) -> &HostMemory {
        &self.sample.memory
    }

    /// Age of the sample, milliseconds.
    pub(in crate::state) fn age_ms(&self, now: Instant) -> u64 {
        age_ms(self.sample.at, now)
    }

    pub(in crate::state) fn started_at(&self) -> Instant {
        self.started_at
    }

    /// Tasks stalled. True if the policy has forgotten the last stall.
    pub(in crate::state) fn stalled(&mut self, now: Instant) -> bool {
        let is_first = self.stalled_age_ms(now).is_none_or(|age| age > policy::STALL_MS);
        self.stalled_at = Some(now);
        is_first
    }

    /// How long ago tasks last stalled, milliseconds.
    pub(in crate::state) fn stalled_age_ms(&self, now: Instant) -> Option<u64> {
        self.stalled_at.map(|at| age_ms(at, now))
    }

    /// True once, when guests had enough time to come back after a restart.
    pub(in crate::state) fn take_sweep_due(&mut self, now: Instant) -> bool {
        let is_due = self.sweep_due && now.saturating_duration_since(self.started_at) >= SWEEP_AFTER;
        self.sweep_due &= !is_due;
        is_due
    }

    /// The host as the policy sees it, if so much is available; `None` where the kernel has no figures of it.
    pub(in crate::state) fn view(&self, available_bytes: u64, now: Instant) -> Option<HostView> {
        let memory = &self.sample.memory;
        (memory.total_bytes > 0).then(|| HostView {
            total_bytes: memory.total_bytes,
            available_bytes,
            age_ms: self.age_ms(now),
            stalled_age_ms: self.stalled_age_ms(now),
        })
    }
}
