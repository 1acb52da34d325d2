//! What would have to change for a guest to get more.

use super::Plan;
use super::reason::Reason;
use crate::motion::Pause;
use crate::observation::Observation;
use crate::share::round::{Bound, Round};
use protocol::bytes::{FRAME_BYTES, Human};

/// How many guests are named of those that hold what another guest waits for.
const NAMES_MAX: usize = 3;

/// A change after which a guest has more, or is bound by something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// It is started with more RAM.
    MoreRam,
    /// There is room in a container that it charges and is not inside of.
    RoomElsewhere,
    /// The bound is wider.
    Wider(Bound),
    /// Its container has a larger weight, min or low; or a container above it has, if that is where guests contend.
    Weight,
    /// It uses more.
    UsesMore,
    /// It stops running out of memory.
    Fits,
    /// A guest (its index) releases what it was asked for (bytes).
    OtherReleases(usize, u64),
    /// Others need less.
    OthersNeedLess,
    /// It sends statistics again.
    Statistics,
    /// It releases what it was asked for itself.
    Releases,
}

/// Remedies for a guest to get more, the most effective one first.
pub(crate) fn remedies(observation: &Observation, plan: &Plan, guest: usize) -> Vec<Remedy> {
    match &plan.targets[guest].reason {
        Reason::AllRam => vec![Remedy::MoreRam],
        Reason::ChargedElsewhere => vec![Remedy::RoomElsewhere],
        Reason::OutOfMemory | Reason::Returning => vec![Remedy::Fits],
        Reason::Kept => vec![Remedy::UsesMore],
        Reason::Floor(bound) => vec![Remedy::Wider(*bound)],
        Reason::Share(bound, round) if *round <= Round::Demand => {
            if bound.is_of_one(observation) {
                vec![Remedy::Wider(*bound)]
            } else if contends(plan, guest, *round) {
                vec![Remedy::Wider(*bound), Remedy::Weight]
            } else {
                vec![Remedy::Wider(*bound), Remedy::UsesMore]
            }
        }
        Reason::Share(bound, Round::Keep) if bound.is_of_one(observation) => vec![Remedy::Wider(*bound)],
        Reason::Share(bound, _) => vec![Remedy::Wider(*bound), Remedy::UsesMore],
        Reason::OnItsWay(Pause::WaitsForOthers, _) => {
            let mut owing: Vec<(u64, usize)> = plan
                .targets
                .iter()
                .enumerate()
                .map(|(i, target)| (target.held_bytes.saturating_sub(target.target_bytes), i))
                .filter(|(bytes, i)| *bytes > 0 && *i != guest)
                .collect();
            owing.sort_unstable_by(|a, b| b.cmp(a));
            owing.iter().take(NAMES_MAX).map(|(bytes, i)| Remedy::OtherReleases(*i, *bytes)).collect()
        }
        Reason::OnItsWay(Pause::Stale, _) => vec![Remedy::Statistics],
        Reason::OnItsWay(..) => vec![Remedy::OthersNeedLess],
        Reason::Excluded(_) => vec![Remedy::Releases],
    }
}

/// True if a weight helps a guest: it has less than it asks for in the round in which memory ran out.
fn contends(plan: &Plan, guest: usize, round: Round) -> bool {
    let target = &plan.targets[guest];
    let asked = match round {
        Round::Use => target.used_bytes,
        Round::Need => target.need_bytes,
        Round::Demand => target.demand_bytes,
        _ => u64::MAX,
    };
    target.share_bytes.saturating_add(FRAME_BYTES) < asked
}

impl Remedy {
    /// A sentence that says what gives the guest more.
    pub fn text(&self, observation: &Observation, plan: &Plan, guest: usize) -> String {
        let view = &observation.guests[guest];
        let path = |at: usize| observation.containers.get(at).map_or("/", |view| view.path.as_str());
        match self {
            Self::MoreRam => "It has all of its RAM: start it with more".into(),
            Self::RoomElsewhere => view.ceiling.as_ref().map_or_else(String::new, |ceiling| {
                format!(
                    "Make room in {}, or set its max above {}",
                    ceiling.container,
                    Human(ceiling.max_bytes)
                )
            }),
            Self::Wider(Bound::None) => "Add memory to the host".into(),
            Self::Wider(Bound::Host { bytes }) => {
                let reserve = plan.budget.map_or(0, |budget| budget.reserve_bytes);
                format!(
                    "The host has {} for guests and a reserve of {}: add memory, or set a smaller reserve",
                    Human(*bytes),
                    Human(reserve)
                )
            }
            Self::Wider(Bound::Container { index, bytes }) => {
                format!("Set a larger max or high of {} than {}", path(*index), Human(*bytes))
            }
            Self::Weight => {
                format!(
                    "Set a larger weight, low or min of {} or of a container above it, compared to its siblings",
                    path(view.container)
                )
            }
            Self::UsesMore if plan.targets[guest].reason == Reason::Kept => {
                "Nothing has to change: it grows when it uses more".into()
            }
            Self::UsesMore => "It gets more when it uses more: idle memory is reclaimed first".into(),
            Self::Fits => "It ran out of memory: set a limit that fits what its programs use".into(),
            Self::OtherReleases(other, bytes) => {
                format!("It gets more when {} releases {}", observation.guests[*other].name, Human(*bytes))
            }
            Self::OthersNeedLess => "It gets more when other guests need less".into(),
            Self::Statistics => "It gets more when it sends statistics again".into(),
            Self::Releases => "It gets more when it releases what it was asked for".into(),
        }
    }
}

#[cfg(test)]
#[path = "remedy_test.rs"]
mod tests;
