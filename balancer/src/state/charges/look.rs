//! Looks at the frame tables of guests, each on a thread of its own.

use crate::guests::{CarriedOut, Look, Looking};
use crate::state::{Balancer, State};
use protocol::bytes::{FRAME_BYTES, Human};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

impl Balancer {
    /// Takes looks that are due, for ever. A guest whose look takes long holds nobody up.
    pub async fn look_at_tables(self: Arc<Self>) {
        loop {
            for looking in self.looks_due() {
                let balancer = Arc::clone(&self);
                tokio::task::spawn_blocking(move || {
                    // What a hostile table makes of it must not leave its guest without looks for ever.
                    match catch_unwind(AssertUnwindSafe(|| Look::take(&looking.frames))) {
                        Ok(look) => balancer.looked(looking, look),
                        Err(_) => balancer.looked_in_vain(looking),
                    }
                });
            }
            self.look_wanted.notified().await;
        }
    }

    fn looks_due(&self) -> Vec<Looking> {
        let state = &mut *self.state();
        let (accounting, guests) = (state.accounting, state.guests.len());
        state.guests.values_mut().filter_map(|guest| guest.look_due(accounting, guests)).collect()
    }

    /// A look came to nothing: it is taken again when one is due, and sees what this one would have.
    fn looked_in_vain(&self, looking: Looking) {
        let state = &mut *self.state();
        let Some(guest) =
            state.guests.get_mut(&looking.guest).filter(|guest| guest.session == looking.session)
        else {
            return;
        };
        tracing::error!(guest = looking.guest, "a look at its frame table panicked");
        guest.is_looked_at = false;
        guest.look_wanted = true;
        guest.unseen.splice(0..0, looking.carried_out);
    }

    fn looked(&self, looking: Looking, look: Look) {
        let state = &mut *self.state();
        let name = &looking.guest;
        let Some(guest) = state.guests.get_mut(name).filter(|guest| guest.session == looking.session) else {
            return;
        };
        guest.look = Some(look);
        guest.is_looked_at = false;
        if guest.look_wanted {
            self.look_wanted.notify_one();
        }
        for done in looking.carried_out {
            state.has_carried_out(name, done);
        }
    }
}

impl State {
    /// The bytes that changed hands were seen: who waits for it may know.
    fn has_carried_out(&mut self, name: &str, CarriedOut { order, moved_frames }: CarriedOut) {
        let Some(guest) = self.guests.get_mut(name) else { return };
        guest.carried_out.send_replace(order);
        if moved_frames > 0 {
            let bytes = moved_frames.saturating_mul(FRAME_BYTES).min(guest.about.ram_bytes);
            let detail = format!("{} were charged to others before", Human(bytes));
            self.guest_event("charges_moved", name, &detail);
        }
        self.forget_owners(name);
        self.adjust();
    }
}
