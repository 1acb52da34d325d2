//! Whether frame tables are to be believed: asking, and what follows from the answers.

use crate::guests::{Reading, Verdict};
use crate::state::State;
use protocol::message::ToVmm;
use std::time::Instant;

impl State {
    /// Each turn: asks guests to compare their tables where those and the kernel differ.
    pub(in crate::state) fn check_tables(&mut self) {
        let now = Instant::now();
        let mut verdicts = Vec::new();
        for (name, guest) in &mut self.guests {
            let Some(reading) = guest.figures.reading() else { continue };
            let differs = guest.cross_check.wants_answer(reading, now);
            if (differs || guest.figures.wants_comparison(now)) && guest.say(ToVmm::Reconcile) {
                guest.cross_check.asked(now);
            }
            match guest.cross_check.waited(now) {
                Verdict::Same => {}
                verdict => verdicts.push((name.clone(), verdict)),
            }
        }
        verdicts.into_iter().for_each(|(name, verdict)| self.judge(&name, &verdict));
    }

    /// A guest says that it compared its table.
    pub(in crate::state) fn check_answer(&mut self, name: &str) {
        let Some(guest) = self.guests.get_mut(name).filter(|guest| guest.cross_check.is_asked()) else {
            return;
        };
        let reading = Reading::take(&guest.frames, &guest.about.images, guest.pid, guest.about.machine);
        let Some(reading) = reading else { return };
        let verdict = guest.cross_check.answered(&reading, Instant::now());
        guest.figures.update(reading);
        self.judge(name, &verdict);
    }

    fn judge(&mut self, name: &str, verdict: &Verdict) {
        match verdict {
            Verdict::Same => {}
            Verdict::Distrusted(why) => self.guest_event("table_disagrees", name, why),
            Verdict::Trusted => {
                self.guest_event("table_agrees", name, "Its table and the kernel's figures agree again");
            }
        }
    }
}
