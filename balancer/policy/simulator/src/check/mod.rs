//! What must hold at every tick.
//!
//! The checks use the observation and the plan alone, not the sums of the policy: each walks from the guests up to
//! the root by the parents of the containers.

mod budgets;
mod needs;
mod reclaim;
mod rest;
mod sums;
mod weights;

use super::world::World;
use policy::Plan;
use serde::Serialize;
use sums::Sums;

const MIB: u64 = 1 << 20;
/// This many ticks after the last change nothing moves any more.
pub const CONVERGENCE_TICKS: u64 = 10;
/// Violations that are stored.
const VIOLATIONS_MAX: usize = 16;

/// Something that must hold and did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Time, milliseconds of simulated time.
    pub at_ms: u64,
    /// What must hold.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

/// The checks, and what they found.
#[derive(Debug, Clone, Default)]
pub struct Checker {
    /// The first few violations.
    pub violations: Vec<Violation>,
    /// All violations.
    pub count: u64,
    /// Checks at rest that were made.
    pub at_rest: u64,
    sums: Vec<Sums>,
    flags: Vec<bool>,
}

impl Checker {
    fn fail(&mut self, at_ms: u64, invariant: &'static str, detail: String) {
        self.count += 1;
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { at_ms, invariant, detail });
        }
    }

    /// Checks a plan against its observation.
    pub fn check(&mut self, world: &World, plan: &Plan) {
        let mut sums = std::mem::take(&mut self.sums);
        Sums::add_up(&mut sums, &world.observation, plan);
        self.between_floor_and_ram(world, plan);
        self.budgets(world, plan, &sums);
        self.protections(world, plan, &sums);
        self.reclaim(world, plan, &sums);
        self.needs(world, plan, &sums);
        let knobs = &world.observation.knobs;
        let still_ms = world.observation.now_ms.saturating_sub(world.disturbed_at_ms);
        if still_ms > CONVERGENCE_TICKS * knobs.interval_ms {
            self.at_rest += 1;
            self.stillness(world, plan, &sums);
            self.weights(world, plan, &sums);
            self.overhang(world, plan, &sums);
        }
        self.sums = sums;
    }
}
