//! What happens to guests when the host starves: some are paused, and at last one is ended.

use super::adjust::Observed;
use crate::state::State;
use crate::state::effects::Effect;
use policy::Plan;
use protocol::bytes::Human;
use protocol::message::ToVmm;

impl State {
    /// Pauses the guests that the plan names, and resumes the others.
    pub(in crate::state) fn pause_guests(&mut self, observed: &Observed, plan: &Plan) {
        let left = Human(self.host.memory().available_bytes);
        for (at, view) in observed.observation.guests.iter().enumerate() {
            let Some(guest) = self.guests.get_mut(observed.guests[at]) else { continue };
            let paused = plan.paused.contains(&at);
            // A `vmm` whose outbox is full gets it with the next tick.
            if guest.paused == paused || !guest.send(ToVmm::Pause { paused }) {
                continue;
            }
            guest.paused = paused;
            let (kind, detail) = if paused {
                let (held, target) = (Human(view.held_bytes()), Human(plan.targets[at].target_bytes));
                let why = format!("because it holds {held} and {target} is its target");
                ("paused", format!("The host has {left} left: it is paused by oom_policy, {why}"))
            } else {
                ("resumed", format!("It runs again; the host has {left} left"))
            };
            self.events.push(kind, Some(&view.name), Some(&guest.about.container), &detail);
        }
    }

    /// Ends the guest that the plan names, once.
    pub(in crate::state) fn end_victim(&mut self, observed: &Observed, plan: &Plan) {
        let left = Human(self.host.memory().available_bytes);
        let Some(at) = plan.victim else {
            let starves = plan.memory.starving_since_ms.is_some();
            if starves && self.decisions.memory.starving_since_ms.is_none() {
                self.events.push("host_starves", None, None, &format!("{left} are left on the host"));
            }
            return;
        };
        let Some(guest) = self.guests.get(observed.guests[at]) else { return };
        let held = Human(observed.observation.guests[at].held_bytes());
        let detail = format!(
            "The host has {left} left: it is ended by oom_policy, because it holds {held} of its RAM"
        );
        self.events.push("oom_killed", Some(&guest.about.name), Some(&guest.about.container), &detail);
        self.effects.push(Effect::Kill { pid: guest.pid });
    }
}
