//! What somebody gives reaches those who wait for it at once, not at the next turn.

use crate::state::{Balancer, State};
use policy;
use std::sync::Arc;
use std::time::Duration;

/// Guests that give tell of it megabyte by megabyte: what came in this time is given on together.
const GRANT_EVERY: Duration = Duration::from_millis(100);

impl Balancer {
    /// Gives what becomes free to those who wait, whenever somebody gives; for as long as the program runs.
    pub async fn grant_what_is_freed(self: Arc<Self>) {
        loop {
            self.freed.notified().await;
            self.state().grant();
            tokio::time::sleep(GRANT_EVERY).await;
        }
    }
}

impl State {
    /// A guest gave something: true if that is worth a look, because somebody waits for it.
    pub(in crate::state) fn gave(&mut self, name: &str) -> bool {
        let Some(guest) = self.guests.get_mut(name).filter(|_| self.waits) else { return false };
        // What it was found to hold a while ago would count as held still.
        guest.read_memory();
        true
    }

    /// Sends the targets that grow. Nobody is asked for more before the next turn: what guests could give is as old as their
    /// last statistics.
    fn grant(&mut self) {
        if !self.waits {
            return;
        }
        self.sample_host();
        let observation = self.observe();
        let plan = policy::decide(&observation);
        self.waits = plan.somebody_waits();
        for (i, (target, view)) in plan.targets.iter().zip(&observation.guests).enumerate() {
            if target.grows(view) {
                self.send_target(&observation, i, target);
            }
        }
    }
}
