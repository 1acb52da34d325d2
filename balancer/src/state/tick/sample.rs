//! What happens by the clock.

use crate::guests::{Guest, ProcessObjects};
use crate::state::{Balancer, State};
use host::meminfo::HostSample;
use protocol::message::{RECONCILE_CPU_PPM, ToVmm};
use protocol::path::ContainerPath;
use std::time::Duration;

/// Containers that were made for a guest wait so long for it after a restart.
const SWEEP_AFTER: Duration = Duration::from_secs(30);

/// A guest's share of what comparing frame tables may cost the host, parts per million of one CPU.
fn reconcile_share_ppm(guests: usize) -> u32 {
    RECONCILE_CPU_PPM / u32::try_from(guests).unwrap_or(u32::MAX).clamp(1, RECONCILE_CPU_PPM)
}

impl Balancer {
    /// One turn: samples the host and every guest, decides, and asks for the statistics of the next turn.
    pub fn tick(&self) {
        let state = &mut *self.state();
        for guest in state.guests.values_mut() {
            guest.read_memory();
            if let Some(process) = ProcessObjects::of_guest(guest.pid, guest.about.machine) {
                guest.process = Some(process);
            }
        }
        state.sample_host();
        let abroad = state.guests.values().filter(|guest| guest.owners.len() > 1);
        for name in abroad.map(|guest| guest.about.name.clone()).collect::<Vec<_>>() {
            state.forget_owners(&name);
        }
        state.watch_objects();
        state.check_tables();
        if state.sweep_due && state.started_at.elapsed() >= SWEEP_AFTER {
            state.sweep_due = false;
            let deepest_first: Vec<ContainerPath> =
                state.tree.iter().map(|(path, _)| path.clone()).rev().collect();
            for path in deepest_first {
                state.sweep(&path);
            }
        }
        state.adjust();
        let cpu_ppm = reconcile_share_ppm(state.guests.len());
        for guest in state.guests.values_mut() {
            if guest.balloon.value.driver_ready {
                guest.say(ToVmm::SampleStats);
            }
            // The budget of the host is shared by all; a `vmm` that was not listening hears it at the next tick.
            if guest.sent_cpu_ppm != Some(cpu_ppm) && guest.say(ToVmm::ReconcileShare { cpu_ppm }) {
                guest.sent_cpu_ppm = Some(cpu_ppm);
            }
        }
        self.look_wanted.notify_one();
    }
}

impl State {
    /// Reads the host's figures, and notes what each guest holds at that moment: the two are added up to what guests
    /// may hold.
    pub(in crate::state) fn sample_host(&mut self) {
        self.take_host(HostSample::take());
    }

    fn take_host(&mut self, host: HostSample) {
        self.host = host;
        for guest in self.guests.values_mut() {
            guest.held_with_host_bytes = guest.held_likely_bytes();
        }
    }

    /// What the host has available if guests hold so much now, and held that when its figures were read. Bytes.
    ///
    /// A guest that touched memory since is found to hold more, of what is said to be available; one that was said to
    /// hold what it had released already is in both. Then the sum of both figures would be another one only because
    /// they are of different moments.
    pub(in crate::state) fn available_bytes(&self) -> u64 {
        let sum = |of: &dyn Fn(&Guest) -> u64| {
            self.guests
                .values()
                .fold(0u64, |sum, guest| sum.saturating_add(of(guest).min(guest.about.ram_bytes)))
        };
        let then = sum(&|guest| guest.held_with_host_bytes);
        let now = sum(&|guest| guest.figures.ram_bytes(&guest.frames.totals()));
        let available = self.host.memory.available_bytes.saturating_add(then).saturating_sub(now);
        available.min(self.host.memory.total_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_guests_are_within_the_budget() {
        for guests in [0, 1, 2, 3, 100, 9_999, 10_000] {
            let share = reconcile_share_ppm(guests);
            assert!(
                share >= 1 && u64::from(share) * guests as u64 <= u64::from(RECONCILE_CPU_PPM),
                "{guests}: {share}"
            );
        }
        assert_eq!((reconcile_share_ppm(1), reconcile_share_ppm(100)), (10_000, 100));
        assert_eq!(reconcile_share_ppm(usize::MAX), 1, "never nothing");
    }
}

#[cfg(test)]
#[path = "moments_test.rs"]
mod moments;
