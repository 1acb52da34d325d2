//! What the policy decided last, and what it is to remember for the next decision.

use crate::events::Events;
use policy::{Budget, HostMemory, Knobs, Plan, Shortfall};
use std::time::Duration;
use tokio::sync::watch;

#[derive(Debug)]
pub(in crate::state) struct Decisions {
    pub knobs: Knobs,
    /// The time between two ticks, for the task that makes them.
    pub interval: watch::Sender<Duration>,
    /// What the policy remembers of the host.
    pub memory: HostMemory,
    /// What guests may hold together by the last plan.
    pub budget: Option<Budget>,
    /// Limits that are smaller than the floors of the guests under them.
    pub shortfalls: Vec<Shortfall>,
    /// A guest is to grow once others released what they were asked for.
    pub waits: bool,
}

impl Decisions {
    pub(in crate::state) fn new(knobs: Knobs) -> Self {
        Self {
            knobs,
            interval: watch::Sender::new(Duration::from_millis(knobs.interval_ms)),
            memory: HostMemory::default(),
            budget: None,
            shortfalls: vec![],
            waits: false,
        }
    }

    /// Puts other knobs in place.
    pub(in crate::state) fn set_knobs(&mut self, knobs: Knobs) {
        self.knobs = knobs;
        // What the host has for guests is measured again.
        self.memory = HostMemory::default();
        self.interval.send_replace(Duration::from_millis(knobs.interval_ms));
    }

    /// Remembers a plan, and adds events for limits that it cannot keep and the last one could.
    pub(in crate::state) fn remember(&mut self, plan: Plan, events: &mut Events) {
        for shortfall in &plan.shortfalls {
            if !self.shortfalls.iter().any(|known| known.container == shortfall.container) {
                events.push("shortfall", None, Some(&shortfall.container), &shortfall.to_string());
            }
        }
        self.memory = plan.memory;
        self.budget = plan.budget;
        self.shortfalls = plan.shortfalls;
    }
}
