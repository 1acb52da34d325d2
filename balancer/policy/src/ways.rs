//! What would have to change for a guest to get more.

use super::motion::Pause;
use super::observation::Observation;
use super::plan::Plan;
use super::reason::Reason;
use super::round::{Bound, Round};
use protocol::bytes::{FRAME_BYTES, Human};

/// Guests that are named as those who hold what another waits for.
const NAMES_MAX: usize = 3;

/// A change after which a guest has more, or is bound by something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is started with more RAM.
    MoreRam,
    /// There is room in a container that it charges and is not inside of.
    RoomElsewhere,
    /// What binds is wider.
    Wider(Bound),
    /// Its container weighs more, or is promised more; or one around it, where that is what contends.
    Weight,
    /// It uses more.
    UsesMore,
    /// It stops running out of memory.
    Fits,
    /// A guest gives what it was asked for: its place, and bytes.
    OtherGives(usize, u64),
    /// Others need less.
    OthersNeedLess,
    /// Its statistics come again.
    Statistics,
    /// It gives what it was asked for itself.
    Gives,
}

/// Ways for a guest to get more, the first one first.
pub(super) fn ways(observation: &Observation, plan: &Plan, guest: usize) -> Vec<Way> {
    match &plan.targets[guest].reason {
        Reason::AllRam => vec![Way::MoreRam],
        Reason::ChargedElsewhere => vec![Way::RoomElsewhere],
        Reason::OutOfMemory | Reason::Returning => vec![Way::Fits],
        Reason::Kept => vec![Way::UsesMore],
        Reason::Floor(bound) => vec![Way::Wider(*bound)],
        Reason::Share(bound, round) if *round <= Round::Want => {
            let target = &plan.targets[guest];
            // Who has all that it asks for in the round in which memory ran out has no use for a weight.
            let asked = match round {
                Round::Use => target.used_bytes,
                Round::Need => target.need_bytes,
                Round::Want => target.want_bytes,
                _ => u64::MAX,
            };
            let contends = target.share_bytes.saturating_add(FRAME_BYTES) < asked;
            match () {
                () if bound.is_of_one(observation) => vec![Way::Wider(*bound)],
                () if contends => vec![Way::Wider(*bound), Way::Weight],
                () => vec![Way::Wider(*bound), Way::UsesMore],
            }
        }
        Reason::Share(bound, Round::Keep) if bound.is_of_one(observation) => vec![Way::Wider(*bound)],
        Reason::Share(bound, _) => vec![Way::Wider(*bound), Way::UsesMore],
        Reason::OnItsWay(Pause::WaitsForOthers, _) => {
            let targets = plan.targets.iter().zip(&observation.guests).enumerate();
            let mut owing: Vec<(u64, usize)> = targets
                .map(|(i, (target, _))| (target.held_bytes.saturating_sub(target.target_bytes), i))
                .filter(|(bytes, i)| *bytes > 0 && *i != guest)
                .collect();
            owing.sort_unstable_by(|a, b| b.cmp(a));
            owing.iter().take(NAMES_MAX).map(|(bytes, i)| Way::OtherGives(*i, *bytes)).collect()
        }
        Reason::OnItsWay(Pause::Stale, _) => vec![Way::Statistics],
        Reason::OnItsWay(..) => vec![Way::OthersNeedLess],
        Reason::Excluded(_) => vec![Way::Gives],
    }
}

impl Way {
    /// One sentence.
    pub fn text(&self, observation: &Observation, plan: &Plan, guest: usize) -> String {
        let view = &observation.guests[guest];
        let path = |at: usize| observation.containers.get(at).map_or("/", |view| view.path.as_str());
        match self {
            Self::MoreRam => "It has all of its RAM: a start with more".into(),
            Self::RoomElsewhere => view.ceiling.as_ref().map_or_else(String::new, |ceiling| {
                format!("Room in {}, or a max above {}", ceiling.container, Human(ceiling.max_bytes))
            }),
            Self::Wider(Bound::None) => "More memory on the host".into(),
            Self::Wider(Bound::Host { bytes }) => {
                let reserve = plan.budget.map_or(0, |budget| budget.reserve_bytes);
                format!(
                    "The host has {} for guests beside a reserve of {}: more memory, or a smaller reserve",
                    Human(*bytes),
                    Human(reserve)
                )
            }
            Self::Wider(Bound::Container { index, bytes }) => {
                format!("A larger max or high of {} than {}", path(*index), Human(*bytes))
            }
            Self::Weight => {
                format!(
                    "A larger weight, low or min of {}, or of what it is in, against those beside it",
                    path(view.container)
                )
            }
            Self::UsesMore if plan.targets[guest].reason == Reason::Kept => {
                "Nothing: it grows when it uses more".into()
            }
            Self::UsesMore => "That it uses more: what is idle goes first".into(),
            Self::Fits => "It ran out of memory: a limit that fits what its programs use".into(),
            Self::OtherGives(other, bytes) => {
                format!("That {} gives back {}", observation.guests[*other].name, Human(*bytes))
            }
            Self::OthersNeedLess => "That others need less".into(),
            Self::Statistics => "That its statistics come again".into(),
            Self::Gives => "That it gives back what it was asked for".into(),
        }
    }
}

#[cfg(test)]
#[path = "ways_test.rs"]
mod tests;
