//! The host's figures and those of guests are of different moments, and the policy adds them up.

use crate::guests::Guest;
use crate::state::State;
use host::meminfo::HostSample;

impl State {
    /// Takes a sample of the host into account, and notes what each guest holds at that moment.
    pub(in crate::state) fn take_host(&mut self, host: HostSample) {
        if self.host.take(host) {
            for guest in self.guests.iter_mut() {
                guest.held_with_host_bytes = guest.held_likely_bytes();
            }
        }
    }

    /// What the host has available if guests hold so much now, and held that when its figures were read. Bytes.
    ///
    /// A guest that touched memory since then is found to hold more, which the host's figure shows as available;
    /// memory that was shown as held although the guest had released it is in both. The sum of both figures must not
    /// change only because they are of different moments.
    pub(in crate::state) fn available_bytes(&self) -> u64 {
        let sum = |of: &dyn Fn(&Guest) -> u64| {
            let held = self.guests.by_seq().map(|guest| of(guest).min(guest.about.ram_bytes));
            held.fold(0u64, u64::saturating_add)
        };
        let then = sum(&|guest| guest.held_with_host_bytes);
        let now = sum(&|guest| guest.figures.ram_bytes(&guest.frames.totals()));
        let memory = self.host.memory();
        memory.available_bytes.saturating_add(then).saturating_sub(now).min(memory.total_bytes)
    }
}

#[cfg(test)]
#[path = "moments_test.rs"]
mod tests;
