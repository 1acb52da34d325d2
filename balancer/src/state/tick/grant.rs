//! What a guest releases reaches the guests that wait for it at once, not at the next tick.

use crate::state::{Balancer, State};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A guest that releases memory reports it megabyte by megabyte: what came in this time is given away together.
const GRANT_EVERY: Duration = Duration::from_millis(100);

impl Balancer {
    /// Gives what is released to the guests that wait for it, for as long as the program runs.
    pub async fn grant_what_is_freed(self: Arc<Self>) {
        loop {
            self.freed.notified().await;
            if self.view(|state, _| state.decisions.waits) {
                let host = self.kernel.host();
                self.change(|state, now| {
                    state.take_host(host);
                    state.grant(now);
                });
            }
            tokio::time::sleep(GRANT_EVERY).await;
        }
    }
}

impl State {
    /// Sends the targets that grow. No guest is asked for more before the next tick: what guests could release is as
    /// old as their last statistics.
    fn grant(&mut self, now: Instant) {
        if !self.decisions.waits {
            return;
        }
        let observed = self.observe(now);
        let plan = policy::decide(&observed.observation);
        self.decisions.waits = plan.any_waits();
        for (at, (target, view)) in plan.targets.iter().zip(&observed.observation.guests).enumerate() {
            if target.grows(view) {
                self.send_target(&observed, at, target, now);
            }
        }
    }
}
