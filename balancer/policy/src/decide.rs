//! The decision.

use crate::guest::needs::Needs;
use crate::host::budget::budget;
use crate::host::starve::starve;
use crate::motion::{Move, advance};
use crate::observation::Observation;
use crate::plan::reason::Reason;
use crate::plan::{GuestTarget, Plan, Shortfall};
use crate::rules::{Rule, Rules};
use crate::share::forest::Forest;
use crate::share::round::{Round, guest_caps};
use protocol::path::ContainerPath;

/// Targets for all guests.
#[must_use]
pub fn decide(observation: &Observation) -> Plan {
    decide_by(observation, Rules::default())
}

/// Targets for all guests by rules of which a test may have removed one.
#[must_use]
pub fn decide_by(observation: &Observation, rules: Rules) -> Plan {
    let (budget, mut memory) = budget(observation, rules);
    let (needs, mut memories): (Vec<_>, Vec<_>) =
        observation.guests.iter().map(|guest| Needs::of(guest, observation.now_ms, rules)).unzip();
    let caps: Vec<_> =
        observation.guests.iter().zip(&needs).map(|(view, needs)| guest_caps(view, needs, rules)).collect();
    let mut forest = Forest::new(observation, budget.map(|budget| budget.bytes));
    forest.measure(observation, &needs, &caps, rules);
    let tax = if rules.has(Rule::IdleTax) { observation.knobs.idle_tax_percent } else { 0 };
    let (parts, short) = forest.share(&caps, &needs, tax);
    let moves = advance(observation, &forest, &needs, &parts, rules);
    let mut targets = Vec::with_capacity(moves.len());
    for (i, Move { target, pause }) in moves.into_iter().enumerate() {
        let (view, needs, part) = (&observation.guests[i], &needs[i], &parts[i]);
        memories[i].target_bytes = Some(target);
        let share_bytes = part.bytes.saturating_sub(view.overhead_bytes).max(needs.floor).min(view.ram_bytes);
        targets.push(GuestTarget {
            target_bytes: target,
            share_bytes,
            floor_bytes: needs.floor,
            used_bytes: needs.used,
            need_bytes: needs.need,
            demand_bytes: needs.demand,
            ceiling_bytes: needs.ceiling,
            held_bytes: needs.held,
            reason: Reason::new(view, needs, part, target, pause, memories[i].health),
            stress: needs.stress,
            ask_again: needs.ask_again,
            memory: memories[i],
        });
    }
    let shortfall = |at: usize| {
        let node = &forest.nodes[at];
        Shortfall {
            container: observation
                .containers
                .get(at)
                .map_or_else(ContainerPath::root, |view| view.path.clone()),
            budget_bytes: node.budget(),
            needed_bytes: node.inner[Round::Floor as usize],
        }
    };
    let shortfalls = short.into_iter().map(shortfall).collect();
    let (paused, victim) = starve(observation, &mut targets, &mut memory);
    Plan { targets, shortfalls, budget, memory, victim, paused }
}

#[cfg(test)]
#[path = "decide_test.rs"]
pub(super) mod tests;
