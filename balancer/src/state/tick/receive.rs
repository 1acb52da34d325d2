//! What guests say.

use crate::guests::Sampled;
use crate::state::{Balancer, State};
use protocol::bytes::Human;
use protocol::message::FromVmm;
use std::time::{Duration, Instant};

/// What is kept of why a machine does not answer, characters.
const STUCK_TEXT_MAX: usize = 400;
/// A guest takes memory back megabyte by megabyte: one event tells of all that follow so closely.
const OUT_OF_MEMORY_EVENT_EVERY: Duration = Duration::from_secs(1);

impl Balancer {
    /// Takes a message of a registered guest.
    pub fn hear(&self, name: &str, session: u64, message: FromVmm) {
        let state = &mut *self.state();
        let Some(guest) = state.guests.get_mut(name).filter(|guest| guest.session == session) else { return };
        match message {
            FromVmm::Balloon(balloon) => {
                let was_ready = guest.balloon.value.driver_ready;
                let (ready, actual) = (balloon.driver_ready, balloon.actual_bytes);
                let gives = actual < guest.balloon.value.actual_bytes;
                let told = guest.out_of_memory_at.is_some_and(|at| at.elapsed() < OUT_OF_MEMORY_EVENT_EVERY);
                if guest.take_balloon(balloon) {
                    let answer = guest.answer_need();
                    if !told {
                        let detail = format!("It took memory back and holds {}", Human(actual));
                        state.guest_event("out_of_memory", name, &detail);
                    }
                    if answer {
                        state.adjust();
                    }
                } else if ready && !was_ready {
                    state.guest_event("balloon_ready", name, "The guest serves its balloon");
                } else if was_ready && !ready {
                    let detail = "The guest serves its balloon no more: it can hold all of its RAM";
                    state.guest_event("balloon_gone", name, detail);
                } else if gives && state.gave(name) {
                    self.freed.notify_one();
                }
            }
            FromVmm::Statistics(statistics) => guest.statistics = Some(Sampled::now(statistics)),
            FromVmm::DiskCache { files, age_ms } => guest.disk_cache.take(files, age_ms),
            FromVmm::Reconciled { mended_frames, took_us } => {
                tracing::debug!(guest = name, mended_frames, took_us, "frame table compared with the kernel");
                guest.reconciled.send_modify(|count| *count += 1);
                state.check_answer(name);
            }
            FromVmm::AskCharge { question, to } => Self::asked_to_charge(state, name, question, to.as_ref()),
            FromVmm::Charged { order, moved_frames } => {
                Self::carried_out(state, name, order, moved_frames);
                self.look_wanted.notify_one();
            }
            FromVmm::Stuck { reason } => Self::stuck(state, name, reason),
            // The session ends on these itself.
            FromVmm::Register(_) | FromVmm::OpenImages(_) | FromVmm::Ended { .. } => {}
            // These belong to the second connection.
            FromVmm::ServePool(_) | FromVmm::AskGranules { .. } | FromVmm::Unmapped { .. } => {}
        }
    }
}

impl Balancer {
    /// The machine of a guest stopped answering, or answers again.
    fn stuck(state: &mut State, name: &str, reason: Option<String>) {
        let Some(guest) = state.guests.get_mut(name) else { return };
        let reason: Option<String> = reason.map(|text| text.chars().take(STUCK_TEXT_MAX).collect());
        let before = std::mem::replace(&mut guest.stuck, reason.clone().map(Sampled::now));
        match (before, reason) {
            (None, Some(reason)) => state.guest_event("guest_stuck", name, &reason),
            (Some(_), None) => state.guest_event("guest_answers", name, "It answers again"),
            _ => {}
        }
    }
}

impl State {
    /// An event that a guest causes, within its budget.
    pub(in crate::state) fn guest_event(&mut self, kind: &str, name: &str, detail: &str) {
        let Some(guest) = self.guests.get_mut(name) else { return };
        let Some(dropped) = guest.budget.take(Instant::now()) else { return };
        let container = &guest.about.container;
        if dropped > 0 {
            let detail = format!("{dropped} events of this guest came too fast and are not shown");
            self.events.push("events_dropped", Some(name), Some(container), &detail);
        }
        self.events.push(kind, Some(name), Some(container), detail);
    }
}
