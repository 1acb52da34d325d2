//! Why a guest has its target: the rule that decided and what it depends on, and a sentence made from both.

use crate::guest::health::Health;
use crate::guest::needs::Needs;
use crate::motion::Pause;
use crate::observation::Observation;
use crate::observation::guest::{GuestView, OutOfMemory};
use crate::share::round::{Bound, Part, Round};
use protocol::bytes::{FRAME_BYTES, Human};

/// The rule that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No limit on the way to the root is smaller than its RAM.
    AllRam,
    /// A container that it charges and is not inside of has no room left.
    ChargedElsewhere,
    /// It ran out of memory and keeps what it holds.
    OutOfMemory,
    /// It ran out of memory, and goes back to its share.
    Returning,
    /// Nothing is left above what it needs to live.
    Floor(Bound),
    /// Its share, and the round in which memory ran out.
    Share(Bound, Round),
    /// It has more than its share and keeps it: the memory is not needed elsewhere.
    Kept,
    /// It is on its way to its share.
    OnItsWay(Pause, u64),
    /// It does not do what it is asked.
    Excluded(Health),
}

impl Reason {
    pub(crate) fn new(
        view: &GuestView,
        needs: &Needs,
        part: &Part,
        target: u64,
        pause: Option<Pause>,
        health: Health,
    ) -> Self {
        let share = part.bytes.saturating_sub(view.overhead_bytes);
        let at = |bytes: u64| bytes / FRAME_BYTES * FRAME_BYTES == target;
        // A guest that has all that the bound leaves cannot have more, however little it needs.
        let alone = match part.bound {
            Bound::Container { bytes, .. } | Bound::Host { bytes } => part.bytes == bytes,
            Bound::None => false,
        };
        match (pause, view.out_of_memory) {
            (Some(Pause::Excluded), _) => Self::Excluded(health),
            (Some(pause), _) if pause != Pause::Small => Self::OnItsWay(pause, share),
            _ if target > needs.floor && view.ceiling.as_ref().is_some_and(|ceiling| at(ceiling.bytes)) => {
                Self::ChargedElsewhere
            }
            _ if target == view.ram_bytes => Self::AllRam,
            (_, OutOfMemory::Holding { .. }) if target == needs.floor => Self::OutOfMemory,
            (_, OutOfMemory::Returning { .. }) if target == needs.floor => Self::Returning,
            _ if target == needs.floor && view.ceiling.as_ref().is_some_and(|c| c.bytes <= target) => {
                Self::ChargedElsewhere
            }
            _ if target == needs.floor => Self::Floor(part.bound),
            _ if part.round == Round::All
                && target == needs.keep_target
                && target > needs.demand
                && !alone =>
            {
                Self::Kept
            }
            _ => Self::Share(part.bound, part.round),
        }
    }

    /// True for a guest that grows once others released what they were asked for.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self, Self::OnItsWay(Pause::WaitsForOthers, _))
    }

    /// Its name in JSON.
    #[must_use]
    pub fn rule(&self) -> &'static str {
        match self {
            Self::AllRam => "all_ram",
            Self::ChargedElsewhere => "charged_elsewhere",
            Self::OutOfMemory => "out_of_memory",
            Self::Returning => "returning",
            Self::Floor(_) => "floor",
            Self::Share(_, Round::Floor | Round::Min) => "min",
            Self::Share(_, Round::Vanished | Round::Low) => "low",
            Self::Share(_, Round::Use) => "use",
            Self::Share(_, Round::Need) => "need",
            Self::Share(_, Round::Demand) => "page_cache",
            Self::Share(_, Round::Keep) => "idle_tax",
            Self::Share(_, Round::All) => "what_is_left",
            Self::Kept => "no_pressure_no_reclaim",
            Self::OnItsWay(Pause::WaitsForOthers, _) => "free_first",
            Self::OnItsWay(Pause::Step, _) => "shrink_slowly",
            Self::OnItsWay(Pause::Owes, _) => "one_step_at_a_time",
            Self::OnItsWay(Pause::Stale, _) => "never_on_stale_statistics",
            Self::OnItsWay(Pause::Small, _) => "hysteresis",
            Self::OnItsWay(Pause::Excluded, _) | Self::Excluded(_) => "excluded",
        }
    }

    /// Its name in JSON. If no other guest is under the bound, the bound alone decides, whatever the round was.
    #[must_use]
    pub fn rule_in(&self, observation: &Observation) -> &'static str {
        if self.binds_one(observation) { "limit" } else { self.rule() }
    }

    /// True for the share of a guest that is alone under its bound.
    fn binds_one(&self, observation: &Observation) -> bool {
        matches!(self, Self::Share(bound, Round::Use | Round::Need | Round::Demand | Round::Keep)
            if bound.is_of_one(observation))
    }

    /// The reason as a sentence.
    #[must_use]
    pub fn text(&self, observation: &Observation, guest: usize) -> String {
        let view = &observation.guests[guest];
        let of = |bound: &Bound| match bound {
            Bound::None => "the host".to_owned(),
            Bound::Host { bytes } => format!("the host, which has {} for guests", Human(*bytes)),
            Bound::Container { index, bytes } => {
                let path = observation.containers.get(*index).map_or("/", |view| view.path.as_str());
                format!("{path}, limited to {}", Human(*bytes))
            }
        };
        match self {
            Self::AllRam => "All of its RAM: no limit on the way to the root is smaller".into(),
            Self::ChargedElsewhere => match &view.ceiling {
                Some(ceiling) => format!(
                    "What it holds and the room left in {}, which it charges and whose max is {}",
                    ceiling.container,
                    Human(ceiling.max_bytes)
                ),
                None => "What it holds and the room left in a container that it charges".into(),
            },
            Self::OutOfMemory => "It ran out of memory: it keeps what it holds for a while".into(),
            Self::Returning => {
                "It ran out of memory: it goes back to its share as its own statistics permit".into()
            }
            Self::Floor(Bound::None) => "Its floor".into(),
            Self::Floor(bound) => format!("Its floor: {} leaves no more", of(bound)),
            Self::Share(bound, round) => format!(
                "Its share of {}, less {} for its vmm{}",
                of(bound),
                Human(view.overhead_bytes),
                match round {
                    _ if self.binds_one(observation) => ": that is all of it, and no other guest shares it",
                    Round::Floor | Round::Min => ": protected memory alone is more than that",
                    Round::Vanished => ": guests whose statistics stopped keep what they have",
                    Round::Low => ": after min, the rest is divided within low",
                    Round::Use => ": guests use more than that, and weights divide it",
                    Round::Need =>
                        ": all guests have what they use, and weights divide the rest for headroom",
                    Round::Demand =>
                        ": all guests have what they need, and weights divide the rest for page cache",
                    Round::Keep => ": others need more, and idle memory is reclaimed first",
                    Round::All => "",
                }
            ),
            Self::Kept => "It keeps what it has: no other guest needs it".into(),
            Self::OnItsWay(Pause::WaitsForOthers, share) => {
                format!("It grows to {} as others release what they were asked for", Human(*share))
            }
            Self::OnItsWay(Pause::Step, share) => {
                format!("It shrinks to {} step by step, as others need it", Human(*share))
            }
            Self::OnItsWay(Pause::Owes, share) => {
                format!("It shrinks further to {} once it released what it was asked for", Human(*share))
            }
            Self::OnItsWay(Pause::Stale, _) => {
                "It keeps what it has: its statistics stopped, and its need is unknown".into()
            }
            Self::OnItsWay(Pause::Small, _) => "It keeps its target: the change would be too small".into(),
            Self::OnItsWay(Pause::Excluded, _) => Health::Stuck.sentence().into(),
            Self::Excluded(health) => {
                format!("{}: it is asked again later, and counts with what it holds", health.sentence())
            }
        }
    }
}
