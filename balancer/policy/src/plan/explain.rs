//! Why a guest has its target, for people: the rule, the figures it depends on with their ages, and what would have
//! to change.

use super::Plan;
use super::remedy::remedies;
use crate::guest::health::Health;
use crate::observation::Observation;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a guest has its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The guest.
    pub guest: String,
    /// What it is asked to hold at most, bytes.
    pub target_bytes: u64,
    /// Its share: where the target goes once others released what they were asked for, bytes.
    pub share_bytes: u64,
    /// Whether it does what it is asked.
    pub health: Health,
    /// Why it cannot be made to release memory, and the limit that cannot be enforced for that reason; `null` for a
    /// guest that serves its balloon.
    pub cannot_give: Option<String>,
    /// The rule that decided, as an identifier.
    pub rule: String,
    /// The rule as a sentence.
    pub reason: String,
    /// The figures that the rule depends on.
    pub inputs: Vec<Input>,
    /// What would have to change for it to get more.
    pub to_get_more: Vec<String>,
}

/// A figure that a decision depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Input {
    /// What the figure means.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Age, milliseconds; `null` for a figure that is set, not measured.
    pub age_ms: Option<u64>,
}

/// Why a guest has its target in a plan.
///
/// # Panics
/// If the guest is not in the observation that the plan was made from.
#[must_use]
pub fn explain(observation: &Observation, plan: &Plan, guest: usize) -> Explanation {
    let (view, target) = (&observation.guests[guest], &plan.targets[guest]);
    let set = |name: &str, bytes| Input { name: name.into(), bytes, age_ms: None };
    let mut inputs = vec![
        set("its RAM", view.ram_bytes),
        set("its floor: no target goes below", target.floor_bytes),
        set("its overhead: memory of its vmm in addition to its RAM", view.overhead_bytes),
        Input { name: "what it may be using".into(), bytes: target.held_bytes, age_ms: Some(0) },
        set("what it needs: what it uses and headroom", target.need_bytes),
        set("what it can make use of: what it needs and its page cache", target.demand_bytes),
    ];
    if let Some(statistics) = &view.statistics {
        for (name, bytes) in [
            ("used, by its statistics", statistics.used_bytes),
            ("available, by its statistics", statistics.available_bytes),
            ("page cache, by its statistics", statistics.cache_bytes),
        ] {
            inputs.push(Input { name: name.into(), bytes, age_ms: Some(statistics.age_ms) });
        }
    }
    if let (Some(budget), Some(host)) = (plan.budget, observation.host) {
        let age_ms = Some(host.age_ms);
        inputs.push(Input { name: "the host's memory for guests".into(), bytes: budget.bytes, age_ms });
        inputs.push(set("the host's reserve", budget.reserve_bytes));
        let name = "available on the host".into();
        inputs.push(Input { name, bytes: host.available_bytes, age_ms });
    }
    let mut above = Some(view.container);
    while let Some(at) = above {
        let Some(container) = observation.containers.get(at) else { break };
        let limits = &container.limits;
        for (name, bytes) in [
            ("max", limits.max_bytes),
            ("high", limits.high_bytes),
            ("low", Some(limits.low_bytes).filter(|bytes| *bytes > 0)),
            ("min", Some(limits.min_bytes).filter(|bytes| *bytes > 0)),
        ] {
            inputs.extend(bytes.map(|bytes| set(&format!("{name} of {}", container.path), bytes)));
        }
        above = (at > 0).then_some(container.parent).filter(|parent| *parent < at);
    }
    Explanation {
        guest: view.name.clone(),
        target_bytes: target.target_bytes,
        share_bytes: target.share_bytes,
        health: target.memory.health,
        cannot_give: view.cannot_give().map(Into::into),
        rule: target.reason.rule_in(observation).into(),
        reason: target.reason.text(observation, guest),
        inputs,
        to_get_more: remedies(observation, plan, guest)
            .iter()
            .map(|remedy| remedy.text(observation, plan, guest))
            .collect(),
    }
}
