//! What decides in a simulation.

use policy::{Observation, Plan, Rules, decide_by};

/// What a guest is asked to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Bytes of its RAM.
    pub bytes: u64,
    /// It is asked again although the target did not change.
    pub again: bool,
}

impl Target {
    /// A target that is sent once.
    #[must_use]
    pub fn of(bytes: u64) -> Self {
        Self { bytes, again: false }
    }
}

/// Gives each guest a target.
pub trait Governor {
    /// Targets for all guests, in the order of the observation. May remember things in the observation.
    fn tick(&mut self, observation: &mut Observation, targets: &mut Vec<Target>);
}

/// The balancer's own policy.
#[derive(Debug, Clone, Default)]
pub struct Ballast {
    /// The rules that hold.
    pub rules: Rules,
    /// Its last plan.
    pub plan: Plan,
}

impl Governor for Ballast {
    fn tick(&mut self, observation: &mut Observation, targets: &mut Vec<Target>) {
        self.plan = decide_by(observation, self.rules);
        targets.clear();
        let target =
            |target: &policy::GuestTarget| Target { bytes: target.target_bytes, again: target.ask_again };
        targets.extend(self.plan.targets.iter().map(target));
    }
}

impl Ballast {
    /// Between two ticks, when a guest released memory: only targets that grow.
    pub fn grant(&mut self, observation: &mut Observation, targets: &mut [Target]) {
        self.plan = decide_by(observation, self.rules);
        for ((target, view), now) in self.plan.targets.iter().zip(&mut observation.guests).zip(targets) {
            if target.grows(view) {
                view.memory = target.memory;
                *now = Target { bytes: target.target_bytes, again: target.ask_again };
            }
        }
    }

    /// Writes what has to be remembered into the observation. A checker compares plan and observation before that.
    pub fn remember(&self, observation: &mut Observation) {
        observation.memory = self.plan.memory;
        for (view, target) in observation.guests.iter_mut().zip(&self.plan.targets) {
            view.memory = target.memory;
        }
    }
}
