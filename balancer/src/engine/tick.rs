//! What happens by the clock.

use super::Engine;
use crate::guests::KernelSample;
use crate::host::HostSample;
use protocol::message::ToVmm;
use protocol::path::ContainerPath;
use std::time::Duration;

/// Containers that were made for a guest wait so long for it after a restart.
const SWEEP_AFTER: Duration = Duration::from_secs(30);
/// A frame table is compared with the kernel at least so often, to measure the overhead of its `vmm`.
const RECONCILE_EVERY: Duration = Duration::from_secs(30);
/// The first comparison waits until the guest has booted.
const RECONCILE_FIRST: Duration = Duration::from_secs(3);

impl Engine {
    /// One turn: samples the host and every guest, decides, and asks for the statistics of the next turn.
    pub fn tick(&self) {
        let state = &mut *self.state();
        state.host = HostSample::take();
        for guest in state.guests.values_mut() {
            if let Some(kernel) = KernelSample::take(guest.pid) {
                guest.figures.update(kernel, &guest.frames.totals());
            }
        }
        if state.sweep_due && state.started_at.elapsed() >= SWEEP_AFTER {
            state.sweep_due = false;
            let deepest_first: Vec<ContainerPath> =
                state.tree.iter().map(|(path, _)| path.clone()).rev().collect();
            for path in deepest_first {
                state.sweep(&path);
            }
        }
        state.adjust();
        for guest in state.guests.values_mut() {
            if guest.balloon.value.driver_ready {
                guest.say(ToVmm::SampleStats);
            }
            let due = match guest.reconcile_asked_at {
                None => guest.registered_at.elapsed() >= RECONCILE_FIRST,
                Some(asked) => asked.elapsed() >= RECONCILE_EVERY,
            };
            if due && guest.say(ToVmm::Reconcile) {
                guest.reconcile_asked_at = Some(std::time::Instant::now());
            }
        }
    }
}
