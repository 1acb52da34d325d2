//! Who decides in a simulation.

use policy::{Observation, Plan, Rules, decide_by};

/// Something that gives each guest a target.
pub trait Governor {
    /// Targets for all guests, and whether a guest is to be asked again. May remember things in the observation.
    fn turn(&mut self, observation: &mut Observation, targets: &mut Vec<(u64, bool)>);
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
    fn turn(&mut self, observation: &mut Observation, targets: &mut Vec<(u64, bool)>) {
        self.plan = decide_by(observation, self.rules);
        targets.clear();
        targets.extend(self.plan.targets.iter().map(|target| (target.target_bytes, target.ask_again)));
    }
}

impl Ballast {
    /// Between two turns, when somebody gave: targets that grow, and no others.
    pub fn grant(&mut self, observation: &mut Observation, targets: &mut [(u64, bool)]) {
        self.plan = decide_by(observation, self.rules);
        for ((target, view), now) in self.plan.targets.iter().zip(&mut observation.guests).zip(targets) {
            if target.grows(view) {
                (view.memory, *now) = (target.memory, (target.target_bytes, target.ask_again));
            }
        }
    }

    /// Writes what has to be remembered into the observation; a checker looks at it before.
    pub fn remember(&self, observation: &mut Observation) {
        observation.memory = self.plan.memory;
        for (view, target) in observation.guests.iter_mut().zip(&self.plan.targets) {
            view.memory = target.memory;
        }
    }
}
