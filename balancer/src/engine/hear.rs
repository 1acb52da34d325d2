//! What guests say.

use super::Engine;
use crate::guests::Sampled;
use protocol::bytes::Human;
use protocol::message::FromVmm;

impl Engine {
    /// Takes a message of a registered guest.
    pub fn hear(&self, name: &str, session: u64, message: FromVmm) {
        let state = &mut *self.state();
        let Some(guest) = state.guests.get_mut(name).filter(|guest| guest.session == session) else { return };
        let container = guest.about.container.clone();
        match message {
            FromVmm::Balloon(balloon) => {
                let was_ready = guest.balloon.value.driver_ready;
                let (ready, actual) = (balloon.driver_ready, balloon.actual_bytes);
                if guest.take_balloon(balloon) {
                    let detail = format!("It took memory back and holds {}", Human(actual));
                    state.events.push("out_of_memory", Some(name), Some(&container), &detail);
                    state.adjust();
                } else if ready && !was_ready {
                    state.events.push(
                        "balloon_ready",
                        Some(name),
                        Some(&container),
                        "The guest serves its balloon",
                    );
                }
            }
            FromVmm::Statistics(statistics) => guest.statistics = Some(Sampled::now(statistics)),
            FromVmm::Reconciled { mended_frames, took_us } => {
                tracing::debug!(guest = name, mended_frames, took_us, "frame table compared with the kernel");
                guest.reconciled.send_modify(|count| *count += 1);
            }
            FromVmm::Event { kind, detail } => {
                state.events.push(&kind, Some(name), Some(&container), &detail)
            }
            // The session ends on these itself.
            FromVmm::Register(_) | FromVmm::Ended { .. } => {}
        }
    }
}
