//! What each guest is asked for with each tick.

use crate::state::State;
use protocol::message::{RECONCILE_CPU_PPM, ToVmm};

/// A guest's share of what comparing frame tables may cost the host, parts per million of one CPU.
fn reconcile_share_ppm(guests: usize) -> u32 {
    RECONCILE_CPU_PPM / u32::try_from(guests).unwrap_or(u32::MAX).clamp(1, RECONCILE_CPU_PPM)
}

impl State {
    /// Asks for the statistics of the next tick.
    pub(in crate::state) fn ask_guests(&mut self) {
        let cpu_ppm = reconcile_share_ppm(self.guests.len());
        for guest in self.guests.iter_mut() {
            if guest.balloon.value.driver_ready {
                guest.send(ToVmm::SampleStats);
            }
            // All guests share what the host may spend; a `vmm` whose outbox was full gets it with the next tick.
            if guest.sent_cpu_ppm != Some(cpu_ppm) && guest.send(ToVmm::ReconcileShare { cpu_ppm }) {
                guest.sent_cpu_ppm = Some(cpu_ppm);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_guests_together_stay_within_the_share_of_the_host() {
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
