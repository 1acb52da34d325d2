//! Why a guest has what it has, for people: the rule, what it depends on with the age of each figure, and what would have to change.

use super::forest::{Bound, Round};
use super::health::Health;
use super::motion::Pause;
use super::observation::Observation;
use super::plan::Plan;
use super::reason::Reason;
use protocol::bytes::Human;
use serde::Serialize;
use utoipa::ToSchema;

/// Guests that are named as those who hold what another waits for.
const NAMES_MAX: usize = 3;

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
        rule: target.reason.rule().into(),
        reason: target.reason.text(observation, guest),
        inputs,
        to_get_more: to_get_more(observation, plan, guest),
    }
}

fn to_get_more(observation: &Observation, plan: &Plan, guest: usize) -> Vec<String> {
    let (view, target) = (&observation.guests[guest], &plan.targets[guest]);
    let path = observation.containers.get(view.container).map_or("/", |container| container.path.as_str());
    let wider = |bound: &Bound| match bound {
        Bound::None => "More memory on the host".to_owned(),
        Bound::Host { bytes } => {
            let reserve = plan.budget.map_or(0, |budget| budget.reserve_bytes);
            format!(
                "The host has {} for guests beside a reserve of {}: more memory, or a smaller reserve",
                Human(*bytes),
                Human(reserve)
            )
        }
        Bound::Container { index, bytes } => {
            let container = observation.containers.get(*index);
            let path = container.map_or("/", |container| container.path.as_str());
            format!("A larger max or high of {path} than {}", Human(*bytes))
        }
    };
    match &target.reason {
        Reason::AllRam => vec!["It has all of its RAM: a start with more".into()],
        Reason::ChargedElsewhere => match &view.ceiling {
            Some(ceiling) => {
                vec![format!("Room in {}, or a max above {}", ceiling.container, Human(ceiling.max_bytes))]
            }
            None => vec![],
        },
        Reason::OutOfMemory | Reason::Returning => {
            vec!["It ran out of memory: a limit that fits what its programs use".into()]
        }
        Reason::Kept => vec!["Nothing: it grows when it uses more".into()],
        Reason::Floor(bound) => vec![wider(bound)],
        Reason::Share(bound, round) => {
            let mut ways = vec![wider(bound)];
            if *round <= Round::Want {
                ways.push(format!("A larger weight, low or min of {path}, against those beside it"));
            } else {
                ways.push("That it uses more: what is idle goes first".into());
            }
            ways
        }
        Reason::OnItsWay(Pause::WaitsForOthers, _) => {
            let mut owing: Vec<(u64, &str)> = plan
                .targets
                .iter()
                .zip(&observation.guests)
                .map(|(target, view)| {
                    (target.held_bytes.saturating_sub(target.target_bytes), view.name.as_str())
                })
                .filter(|(bytes, _)| *bytes > 0)
                .collect();
            owing.sort_unstable_by(|a, b| b.cmp(a));
            owing
                .iter()
                .take(NAMES_MAX)
                .map(|(bytes, name)| format!("That {name} gives back {}", Human(*bytes)))
                .collect()
        }
        Reason::OnItsWay(Pause::Stale, _) => vec!["That its statistics come again".into()],
        Reason::OnItsWay(..) => vec!["That others need less".into()],
        Reason::Excluded(_) => vec!["That it gives back what it was asked for".into()],
    }
}
