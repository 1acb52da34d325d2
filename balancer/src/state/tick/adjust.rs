//! Observe, decide, send.

use crate::guests::{Guest, GuestSeq};
use crate::state::State;
use crate::tree::{Node, Tree};
use policy::{ContainerView, GuestTarget, GuestView, Health, Observation, OutOfMemory, is_worth_sending};
use protocol::bytes::Human;
use protocol::message::ToVmm;
use protocol::path::ContainerPath;
use std::collections::HashMap;
use std::time::Instant;

/// The input of the policy, and the guests in it. A plan names guests by their place in the observation, and `guests`
/// has their numbers at the same places.
#[derive(Debug)]
pub(in crate::state) struct Observed {
    pub observation: Observation,
    pub guests: Vec<GuestSeq>,
}

impl State {
    /// The input of the policy now.
    pub(in crate::state) fn observe(&self, now: Instant) -> Observed {
        self.observe_with(self.containers.tree(), now)
    }

    /// The input of the policy if this were the tree.
    pub(in crate::state) fn observe_with(&self, tree: &Tree, now: Instant) -> Observed {
        // Paths are in the order of their text, so that the root comes first and each container behind the one it is
        // in.
        let index: HashMap<&str, usize> =
            tree.iter().enumerate().map(|(at, (path, _))| (path.as_str(), at)).collect();
        let place = |path: &ContainerPath| index.get(path.as_str()).copied().unwrap_or(0);
        let container = |(path, node): (&ContainerPath, &Node)| ContainerView {
            path: path.clone(),
            parent: path.parent().map_or(0, |parent| place(&parent)),
            limits: node.limits.clone(),
            charged_bytes: self.pool.bytes_for_policy(path, node.owner),
        };
        let mut ceilings = self.ceilings();
        let guest = |guest: &Guest| {
            let ceiling = ceilings.remove(&guest.seq);
            GuestView { ceiling, ..guest.view(place(&guest.about.container), now) }
        };
        let observation = Observation {
            now_ms: crate::guests::age_ms(self.host.started_at(), now),
            host: self.host.view(self.available_bytes(), now),
            knobs: self.decisions.knobs,
            memory: self.decisions.memory,
            containers: tree.iter().map(container).collect(),
            guests: self.guests.iter().map(guest).collect(),
        };
        Observed { observation, guests: self.guests.iter().map(|guest| guest.seq).collect() }
    }

    /// Decides again and sends every target that changed enough; page cache that is in the way of a limit is dropped.
    pub(in crate::state) fn adjust(&mut self, now: Instant) {
        let observed = self.observe(now);
        let plan = policy::decide(&observed.observation);
        for (at, target) in plan.targets.iter().enumerate() {
            self.send_target(&observed, at, target, now);
        }
        self.decisions.waits = plan.any_waits();
        self.pause_guests(&observed, &plan);
        self.end_victim(&observed, &plan);
        self.decisions.remember(plan, &mut self.events);
        self.drop_disk_caches(now);
        self.waiters.room_may_be();
    }

    /// Sends the target of the guest at this place of the observation, if it is worth sending.
    pub(in crate::state) fn send_target(
        &mut self,
        observed: &Observed,
        at: usize,
        target: &GuestTarget,
        now: Instant,
    ) {
        let (observation, view) = (&observed.observation, &observed.observation.guests[at]);
        let Some(guest) = self.guests.get_mut(observed.guests[at]) else { return };
        let before = guest.memory.health;
        guest.memory = target.memory;
        // Its share is above what it was kept at: from here on it is a guest like any other.
        let returning = matches!(view.out_of_memory, OutOfMemory::Returning { .. });
        if returning && target.target_bytes > view.raised_floor_bytes() {
            guest.out_of_memory_at = None;
        }
        if target.ask_again || is_worth_sending(guest.sent_target_bytes, target.target_bytes) {
            let reason = target.reason.text(observation, at);
            let message = ToVmm::Target { target_bytes: target.target_bytes, reason: reason.clone() };
            if guest.send(message) {
                let detail = format!("{}: {reason}", Human(target.target_bytes));
                self.events.push("target_changed", Some(&view.name), Some(&guest.about.container), &detail);
                guest.sent_target_bytes = Some(target.target_bytes);
                guest.target_reason = reason;
            } else {
                tracing::warn!(guest = view.name, "its outbox is full; the target is sent again later");
            }
        }
        // What counts is what it was asked for.
        guest.memory.target_bytes = guest.sent_target_bytes;
        if let Some((kind, detail)) = change_of_health(before, target) {
            guest.event(&mut self.events, kind, &detail, now);
        }
    }
}

/// The event about the health of a guest, if that changed.
fn change_of_health(before: Health, target: &GuestTarget) -> Option<(&'static str, String)> {
    let health = target.memory.health;
    let is_ill = |health| !matches!(health, Health::Well | Health::WithoutStatistics);
    let (held, asked) = (Human(target.held_bytes), Human(target.target_bytes));
    if health == before {
        None
    } else if is_ill(health) {
        let detail = format!("{}: it holds {held}, and {asked} is its target", health.sentence());
        Some((health.name(), detail))
    } else if is_ill(before) {
        Some(("well", format!("{}; it holds {held}", Health::Well.sentence())))
    } else {
        None
    }
}
