//! The decision.

use super::budget::budget;
use super::forest::Forest;
use super::motion::{Move, advance};
use super::observation::Observation;
use super::plan::{GuestTarget, Plan, Shortfall};
use super::reason::Reason;
use super::round::guest_caps;
use super::rules::Rules;
use super::starve::starve;
use protocol::path::ContainerPath;

/// Targets for all guests.
#[must_use]
pub fn decide(observation: &Observation) -> Plan {
    decide_by(observation, Rules::default())
}

/// The same by rules of which a test may have taken one out.
#[must_use]
pub fn decide_by(observation: &Observation, rules: Rules) -> Plan {
    let (budget, mut memory) = budget(observation, rules);
    let (senses, mut memories): (Vec<_>, Vec<_>) =
        observation.guests.iter().map(|guest| guest.sense(observation.now_ms, rules)).unzip();
    let caps: Vec<_> =
        observation.guests.iter().zip(&senses).map(|(view, sense)| guest_caps(view, sense, rules)).collect();
    let mut forest = Forest::new(observation, budget.map(|budget| budget.bytes));
    forest.measure(observation, &senses, &caps, rules);
    let tax = if rules.has(super::Rule::IdleTax) { observation.knobs.idle_tax_percent } else { 0 };
    let (parts, short) = forest.share(&caps, &senses, tax);
    let moves = advance(observation, &forest, &senses, &parts, rules);
    let mut targets = Vec::with_capacity(moves.len());
    for (i, Move { target, pause }) in moves.into_iter().enumerate() {
        let (view, sense, part) = (&observation.guests[i], &senses[i], &parts[i]);
        memories[i].target_bytes = Some(target);
        let share_bytes = part.bytes.saturating_sub(view.overhead_bytes).max(sense.floor).min(view.ram_bytes);
        targets.push(GuestTarget {
            target_bytes: target,
            share_bytes,
            floor_bytes: sense.floor,
            used_bytes: sense.used,
            need_bytes: sense.need,
            want_bytes: sense.want,
            most_bytes: sense.most,
            held_bytes: sense.held,
            reason: Reason::new(view, sense, part, target, pause, memories[i].health),
            stress: sense.stress,
            ask_again: sense.ask_again,
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
            needed_bytes: node.inner[0],
        }
    };
    let shortfalls = short.into_iter().map(shortfall).collect();
    let (paused, victim) = starve(observation, &mut targets, &mut memory);
    Plan { targets, shortfalls, budget, memory, victim, paused }
}

#[cfg(test)]
#[path = "decide_test.rs"]
pub(super) mod tests;
