//! Whether frame tables are trusted: asking guests to compare them, and what follows from the answers.

use crate::guests::{Guest, Verdict};
use crate::state::State;
use crate::state::kernel::Sample;
use protocol::message::ToVmm;
use std::time::Instant;

impl State {
    /// At each tick: asks guests to compare their tables where those and the kernel differ.
    pub(in crate::state) fn check_tables(&mut self, now: Instant) {
        for guest in self.guests.iter_mut() {
            let Some(reading) = guest.figures.reading() else { continue };
            let differs = guest.cross_check.wants_answer(reading, now);
            if (differs || guest.figures.wants_comparison(now)) && guest.send(ToVmm::Reconcile) {
                guest.cross_check.asked(now);
            }
            let verdict = guest.cross_check.waited(now);
            judge(guest, &mut self.events, &verdict, now);
        }
    }

    /// A guest says that it compared its table, and was read right after that.
    pub(in crate::state) fn check_answer(&mut self, sample: Sample, now: Instant) {
        let Some(guest) = self.guests.get_mut(sample.seq).filter(|guest| guest.cross_check.is_asked()) else {
            return;
        };
        let Some(reading) = &sample.memory else { return };
        let verdict = guest.cross_check.answered(reading, now);
        judge(guest, &mut self.events, &verdict, now);
        self.guests.take(sample);
    }
}

fn judge(guest: &mut Guest, events: &mut crate::events::Events, verdict: &Verdict, now: Instant) {
    match verdict {
        Verdict::Same => {}
        Verdict::Distrusted(why) => guest.event(events, "table_disagrees", why, now),
        Verdict::Trusted => {
            guest.event(events, "table_agrees", "Its table and the kernel's figures agree again", now);
        }
    }
}
