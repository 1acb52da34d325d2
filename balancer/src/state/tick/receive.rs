//! What guests report.

use crate::guests::{ChargeId, Guest, GuestSeq, Sampled};
use crate::state::effects::Effect;
use crate::state::kernel::Source;
use crate::state::{Balancer, State};
use protocol::bytes::Human;
use protocol::message::{Balloon, FromVmm};
use std::time::{Duration, Instant};

/// What is kept of the reason why a machine does not answer, characters.
const STUCK_TEXT_MAX: usize = 400;
/// A guest deflates its balloon megabyte by megabyte: there is one event in this time.
const OUT_OF_MEMORY_EVENT_EVERY: Duration = Duration::from_secs(1);

impl Balancer {
    /// Takes a message of a registered guest.
    pub fn receive(&self, guest: GuestSeq, message: FromVmm) {
        self.change(|state, now| state.receive(guest, message, now));
    }
}

impl State {
    fn receive(&mut self, seq: GuestSeq, message: FromVmm, now: Instant) {
        let Some(guest) = self.guests.get_mut(seq) else { return };
        match message {
            FromVmm::Balloon(balloon) => self.receive_balloon(seq, balloon, now),
            FromVmm::Statistics(value) => guest.statistics = Some(Sampled { value, at: now }),
            FromVmm::DiskCache { files, age_ms } => guest.disk_cache.take(files, age_ms, now),
            FromVmm::Reconciled { mended_frames, took_us } => {
                let name = &guest.about.name;
                tracing::debug!(guest = name, mended_frames, took_us, "frame table compared with the kernel");
                guest.reconciled.send_modify(|count| *count += 1);
                if guest.cross_check.is_asked() {
                    self.effects.push(Effect::ReadCompared(Source::of(guest)));
                }
            }
            FromVmm::AskCharge { question, to } => self.asked_to_charge(seq, question, to.as_ref(), now),
            FromVmm::Charged { order, moved_frames } => {
                self.charge_done(seq, ChargeId(order), moved_frames);
                self.effects.push(Effect::ScanTables);
            }
            FromVmm::Stuck { reason } => {
                if let Some((kind, detail)) = stuck(guest, reason, now) {
                    guest.event(&mut self.events, kind, &detail, now);
                }
            }
            // The session ends on these itself.
            FromVmm::Register(_) | FromVmm::OpenImages(_) | FromVmm::Ended { .. } => {}
            // These belong to the second connection.
            FromVmm::ServePool(_) | FromVmm::AskGranules { .. } | FromVmm::Unmapped { .. } => {}
        }
    }

    fn receive_balloon(&mut self, seq: GuestSeq, balloon: Balloon, now: Instant) {
        let Some(guest) = self.guests.get_mut(seq) else { return };
        let was_ready = guest.balloon.value.driver_ready;
        let (ready, actual) = (balloon.driver_ready, balloon.actual_bytes);
        let releases = actual < guest.balloon.value.actual_bytes;
        let is_recent = |at: Instant| now.saturating_duration_since(at) < OUT_OF_MEMORY_EVENT_EVERY;
        let is_known = guest.out_of_memory_at.is_some_and(is_recent);
        if guest.take_balloon(balloon, now) {
            let answer = guest.answer_need(now);
            if !is_known {
                let detail = format!("It took memory back and holds {}", Human(actual));
                guest.event(&mut self.events, "out_of_memory", &detail, now);
            }
            if answer {
                self.adjust(now);
            }
        } else if ready && !was_ready {
            guest.event(&mut self.events, "balloon_ready", "The guest serves its balloon", now);
        } else if was_ready && !ready {
            let detail = "The guest serves its balloon no more: it can hold all of its RAM";
            guest.event(&mut self.events, "balloon_gone", detail, now);
        } else if releases && self.decisions.waits {
            self.effects.push(Effect::ReadReleased(Source::of(guest)));
        }
    }
}

/// The machine of a guest stopped answering, or answers again. Returns the event, if there is one.
fn stuck(guest: &mut Guest, reason: Option<String>, now: Instant) -> Option<(&'static str, String)> {
    let reason: Option<String> = reason.map(|text| text.chars().take(STUCK_TEXT_MAX).collect());
    let stuck = reason.clone().map(|value| Sampled { value, at: now });
    match (std::mem::replace(&mut guest.stuck, stuck), reason) {
        (None, Some(reason)) => Some(("guest_stuck", reason)),
        (Some(_), None) => Some(("guest_answers", "It answers again".to_owned())),
        _ => None,
    }
}
