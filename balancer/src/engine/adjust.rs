//! Observe, decide, send.

use super::State;
use crate::policy::{self, ContainerView, Observation, OutOfMemory, is_worth_sending};
use protocol::bytes::Human;
use protocol::message::ToVmm;

impl State {
    /// What the policy is told now.
    pub(super) fn observe(&self) -> Observation {
        let container = |(path, node): (&_, &crate::tree::Node)| ContainerView {
            path: Clone::clone(path),
            limits: node.limits.clone(),
            charged_bytes: self.pool_bytes_for_policy(path, node.owner),
        };
        let mut ceilings = self.ceilings();
        let guest = |guest: &crate::guests::Guest| {
            let mut view = guest.view();
            view.ceiling = ceilings.remove(&view.name);
            view
        };
        Observation {
            containers: self.tree.iter().map(container).collect(),
            guests: self.guests.values().map(guest).collect(),
        }
    }

    /// Decides anew and sends every target that changed enough; what page cache is in the way of a limit is dropped.
    pub(super) fn adjust(&mut self) {
        let observation = self.observe();
        let plan = policy::decide(&observation);
        for (target, view) in plan.targets.into_iter().zip(&observation.guests) {
            let guest = self.guests.get_mut(&target.name).expect("a plan has the guests of its observation");
            // Its share is above what it was kept at: from here on it is a guest like any other.
            let returning = matches!(view.out_of_memory, OutOfMemory::Returning { .. });
            if returning && target.target_bytes > view.raised_floor_bytes() {
                guest.out_of_memory_at = None;
            }
            if !is_worth_sending(guest.sent_target_bytes, target.target_bytes) {
                continue;
            }
            let message = ToVmm::Target { target_bytes: target.target_bytes, reason: target.reason.clone() };
            if guest.say(message) {
                let detail = format!("{}: {}", Human(target.target_bytes), target.reason);
                self.events.push("target_changed", Some(&target.name), Some(&guest.about.container), &detail);
                guest.sent_target_bytes = Some(target.target_bytes);
                guest.target_reason = target.reason;
            } else {
                tracing::warn!(
                    guest = target.name,
                    "its vmm does not listen; the target is sent again later"
                );
            }
        }
        for shortfall in &plan.shortfalls {
            if !self.shortfalls.iter().any(|known| known.container == shortfall.container) {
                self.events.push("shortfall", None, Some(&shortfall.container), &shortfall.to_string());
            }
        }
        self.shortfalls = plan.shortfalls;
        self.drop_disk_caches();
    }
}
