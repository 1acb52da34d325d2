//! Observe, decide, send.

use crate::state::State;
use crate::tree::Tree;
use policy::{
    self, ContainerView, GuestTarget, Health, HostView, Observation, OutOfMemory, Plan, is_worth_sending,
};
use protocol::bytes::Human;
use protocol::message::ToVmm;
use protocol::path::ContainerPath;
use std::collections::HashMap;
use std::time::Instant;

impl State {
    /// What the policy is told now.
    pub(in crate::state) fn observe(&self) -> Observation {
        self.observe_with(&self.tree)
    }

    /// The same if the tree were another one.
    pub(in crate::state) fn observe_with(&self, tree: &Tree) -> Observation {
        // Paths are in the order of their text, so that the root comes first and each container behind the one it is in.
        let index: HashMap<&str, usize> =
            tree.iter().enumerate().map(|(at, (path, _))| (path.as_str(), at)).collect();
        let place = |path: &ContainerPath| index.get(path.as_str()).copied().unwrap_or(0);
        let container = |(path, node): (&ContainerPath, &crate::tree::Node)| ContainerView {
            path: path.clone(),
            parent: path.parent().map_or(0, |parent| place(&parent)),
            limits: node.limits.clone(),
            charged_bytes: self.pool_bytes_for_policy(path, node.owner),
        };
        let mut ceilings = self.ceilings();
        let guest = |guest: &crate::guests::Guest| {
            let mut view = guest.view(place(&guest.about.container));
            view.ceiling = ceilings.remove(&view.name);
            view
        };
        Observation {
            now_ms: since(self.started_at),
            host: self.host_view(),
            knobs: self.knobs,
            memory: self.memory,
            containers: tree.iter().map(container).collect(),
            guests: self.guests.values().map(guest).collect(),
        }
    }

    /// The host, if the kernel says anything of it.
    fn host_view(&self) -> Option<HostView> {
        let memory = &self.host.memory;
        (memory.total_bytes > 0).then(|| HostView {
            total_bytes: memory.total_bytes,
            available_bytes: self.available_bytes(),
            age_ms: since(self.host.at),
            stalled_age_ms: self.stalled_at.map(since),
        })
    }

    /// Decides anew and sends every target that changed enough; what page cache is in the way of a limit is dropped.
    pub(in crate::state) fn adjust(&mut self) {
        let observation = self.observe();
        let plan = policy::decide(&observation);
        for (i, target) in plan.targets.iter().enumerate() {
            self.send_target(&observation, i, target);
        }
        for shortfall in &plan.shortfalls {
            if !self.shortfalls.iter().any(|known| known.container == shortfall.container) {
                self.events.push("shortfall", None, Some(&shortfall.container), &shortfall.to_string());
            }
        }
        self.waits = plan.somebody_waits();
        self.hold_up(&observation, &plan);
        self.end_victim(&observation, &plan);
        self.memory = plan.memory;
        self.budget = plan.budget;
        self.shortfalls = plan.shortfalls;
        self.drop_disk_caches();
        self.room.send_replace(());
    }

    pub(in crate::state) fn send_target(
        &mut self,
        observation: &Observation,
        i: usize,
        target: &GuestTarget,
    ) {
        let view = &observation.guests[i];
        let guest = self.guests.get_mut(&view.name).expect("a plan has the guests of its observation");
        let before = guest.memory.health;
        guest.memory = target.memory;
        // Its share is above what it was kept at: from here on it is a guest like any other.
        let returning = matches!(view.out_of_memory, OutOfMemory::Returning { .. });
        if returning && target.target_bytes > view.raised_floor_bytes() {
            guest.out_of_memory_at = None;
        }
        if target.ask_again || is_worth_sending(guest.sent_target_bytes, target.target_bytes) {
            let reason = target.reason.text(observation, i);
            let message = ToVmm::Target { target_bytes: target.target_bytes, reason: reason.clone() };
            if guest.say(message) {
                let detail = format!("{}: {reason}", Human(target.target_bytes));
                self.events.push("target_changed", Some(&view.name), Some(&guest.about.container), &detail);
                guest.sent_target_bytes = Some(target.target_bytes);
                guest.target_reason = reason;
            } else {
                tracing::warn!(guest = view.name, "its vmm does not listen; the target is sent again later");
            }
        }
        // What counts is what it was asked for.
        guest.memory.target_bytes = guest.sent_target_bytes;
        let health = target.memory.health;
        if health != before {
            let told = |health| !matches!(health, Health::Well | Health::WithoutStatistics);
            let held = Human(target.held_bytes);
            if told(health) {
                let asked = Human(target.target_bytes);
                let detail = format!("{}: it holds {held}, and {asked} is its target", health.sentence());
                self.guest_event(health.name(), &view.name, &detail);
            } else if told(before) {
                let detail = format!("{}; it holds {held}", Health::Well.sentence());
                self.guest_event("well", &view.name, &detail);
            }
        }
    }

    /// Lets the guests stand still that the plan names, and the others go on.
    fn hold_up(&mut self, observation: &Observation, plan: &Plan) {
        for (i, view) in observation.guests.iter().enumerate() {
            let Some(guest) = self.guests.get_mut(&view.name) else { continue };
            let paused = plan.paused.contains(&i);
            // A `vmm` that does not listen is told again at the next turn.
            if guest.paused == paused || !guest.say(ToVmm::Pause { paused }) {
                continue;
            }
            guest.paused = paused;
            let left = Human(self.host.memory.available_bytes);
            let (kind, detail) = match paused {
                true => {
                    let (held, target) = (Human(view.held_bytes()), Human(plan.targets[i].target_bytes));
                    (
                        "paused",
                        format!(
                            "The host has {left} left: it stands still by oom_policy, because it holds {held} and {target} is its target"
                        ),
                    )
                }
                false => ("resumed", format!("It goes on; the host has {left} left")),
            };
            self.events.push(kind, Some(&view.name), Some(&guest.about.container), &detail);
        }
    }

    /// Ends the guest that the plan names, once.
    fn end_victim(&mut self, observation: &Observation, plan: &Plan) {
        let Some(view) = plan.victim.map(|i| &observation.guests[i]) else {
            if plan.memory.starving_since_ms.is_some() && self.memory.starving_since_ms.is_none() {
                let left = Human(self.host.memory.available_bytes);
                self.events.push("host_starves", None, None, &format!("{left} are left on the host"));
            }
            return;
        };
        let guest = &self.guests[&view.name];
        let detail = format!(
            "The host has {} left: it is ended by oom_policy, because it holds {} of its RAM",
            Human(self.host.memory.available_bytes),
            Human(view.held_bytes())
        );
        let (pid, container) = (guest.pid, guest.about.container.clone());
        self.events.push("oom_killed", Some(&view.name), Some(&container), &detail);
        // SAFETY: a signal to the process at the other end of a socket of this user.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

/// Milliseconds since then.
pub(in crate::state) fn since(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)
}
