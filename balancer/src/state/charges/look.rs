//! Scans of the frame tables of guests, each on a thread of its own.

use crate::guests::{CarriedOut, Guest, Look, Looking};
use crate::state::effects::Effect;
use crate::state::{Balancer, State};
use protocol::bytes::{FRAME_BYTES, Human};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

impl Balancer {
    /// Makes the scans that are due, for ever. A guest whose scan takes long delays no other guest.
    pub async fn look_at_tables(self: Arc<Self>) {
        loop {
            for looking in self.change(State::looks_due) {
                let balancer = Arc::clone(&self);
                tokio::task::spawn_blocking(move || {
                    // What a hostile table makes of it must not leave its guest without scans for ever.
                    let look = catch_unwind(AssertUnwindSafe(|| Look::take(&looking.frames))).ok();
                    balancer.change(|state, now| match look {
                        Some(look) => state.looked(looking, look, now),
                        None => state.looked_in_vain(looking),
                    });
                });
            }
            self.scan_wanted.notified().await;
        }
    }
}

impl State {
    fn looks_due(&mut self, now: Instant) -> Vec<Looking> {
        let (accounting, guests) = (self.accounting, self.guests.len());
        self.guests.iter_mut().filter_map(|guest| guest.look_due(accounting, guests, now)).collect()
    }

    /// A scan failed: it is made again when one is due, and sees what this one would have seen.
    fn looked_in_vain(&mut self, looking: Looking) {
        let Some(guest) = self.guests.get_mut(looking.guest) else { return };
        tracing::error!(guest = guest.about.name, "a scan of its frame table panicked");
        guest.is_looked_at = false;
        guest.look_wanted = true;
        guest.unseen.splice(0..0, looking.carried_out);
    }

    fn looked(&mut self, looking: Looking, look: Look, now: Instant) {
        let Some(guest) = self.guests.get_mut(looking.guest) else { return };
        guest.look = Some(look);
        guest.is_looked_at = false;
        if guest.look_wanted {
            self.effects.push(Effect::ScanTables);
        }
        for done in &looking.carried_out {
            // The bytes that changed hands were seen: the request may be answered.
            if let Some(guest) = self.guests.get_mut(looking.guest) {
                guest.carried_out.send_replace(done.order);
                if let Some(detail) = moved_charges(guest, done) {
                    guest.event(&mut self.events, "charges_moved", &detail, now);
                }
            }
            self.forget_owners(looking.guest);
            self.adjust(now);
        }
    }
}

/// What to tell about charges that were moved from other containers.
fn moved_charges(guest: &Guest, done: &CarriedOut) -> Option<String> {
    let bytes = done.moved_frames.saturating_mul(FRAME_BYTES).min(guest.about.ram_bytes);
    (bytes > 0).then(|| format!("{} were charged to others before", Human(bytes)))
}
