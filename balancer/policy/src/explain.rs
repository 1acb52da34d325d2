//! Why a guest has what it has, for people: the rule, what it depends on with the age of each figure, and what would have to change.

use super::health::Health;
use super::observation::Observation;
use super::plan::Plan;
use super::ways::ways;
use serde::Serialize;
use utoipa::ToSchema;

/// Why a guest has its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Explanation {
    /// The guest.
    pub guest: String,
    /// What it is asked to hold at most, bytes.
    pub target_bytes: u64,
    /// Where that goes when others gave what they were asked for, bytes.
    pub share_bytes: u64,
    /// How it is.
    pub health: Health,
    /// Why it cannot be made to give memory, and which limit cannot be enforced for that; `null` for a guest that serves its balloon.
    pub cannot_give: Option<String>,
    /// The rule that decided, a word.
    pub rule: String,
    /// The rule as a sentence.
    pub reason: String,
    /// What the rule depends on.
    pub inputs: Vec<Input>,
    /// What would have to change for it to get more.
    pub to_get_more: Vec<String>,
}

/// A figure that a decision depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Input {
    /// What it is.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Age, milliseconds; `null` for what has none: it is set, not measured.
    pub age_ms: Option<u64>,
}

/// Why a guest has what a plan gives it.
///
/// # Panics
/// When the guest is not in the observation that the plan was made from.
#[must_use]
pub fn explain(observation: &Observation, plan: &Plan, guest: usize) -> Explanation {
    let (view, target) = (&observation.guests[guest], &plan.targets[guest]);
    let set = |name: &str, bytes| Input { name: name.into(), bytes, age_ms: None };
    let mut inputs = vec![
        set("its RAM", view.ram_bytes),
        set("its floor: no target goes below", target.floor_bytes),
        set("its vmm beside that", view.overhead_bytes),
        Input { name: "what it may be using".into(), bytes: target.held_bytes, age_ms: Some(0) },
        set("what it needs: what it uses and headroom", target.need_bytes),
        set("what it would make use of: that and its page cache", target.want_bytes),
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
        to_get_more: ways(observation, plan, guest)
            .iter()
            .map(|way| way.text(observation, plan, guest))
            .collect(),
    }
}
