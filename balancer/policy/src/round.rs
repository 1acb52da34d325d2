//! The rounds in which a budget is divided (the module's head tells what they are), what somebody can use up to the end of each, and
//! what a division gives.

use super::demand::Sense;
use super::observation::{GuestView, Observation};
use super::rules::{Rule, Rules};

/// Rounds of filling, see the module's head.
pub(super) const ROUNDS: usize = 9;

/// What a member of a container can use up to the end of each round, bytes; not falling.
pub(super) type Caps = [u64; ROUNDS];

/// A round. Its number is its place in [`Caps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the module's head tells what they are")]
#[repr(u8)]
pub enum Round {
    Floor,
    Vanished,
    Min,
    Low,
    Use,
    Need,
    Want,
    Keep,
    All,
}

impl Round {
    pub(super) const ORDER: [Self; ROUNDS] = [
        Self::Floor,
        Self::Vanished,
        Self::Min,
        Self::Low,
        Self::Use,
        Self::Need,
        Self::Want,
        Self::Keep,
        Self::All,
    ];
}

/// The bound on memory that was the smallest on the way from the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// There is none.
    None,
    /// What the host has for guests.
    Host {
        /// Bytes.
        bytes: u64,
    },
    /// The smaller of `high` and `max` of a container.
    Container {
        /// Where it stands in the observation.
        index: usize,
        /// Bytes.
        bytes: u64,
    },
}

impl Bound {
    /// True if it binds a single guest: nothing divides it, and nobody else needs it.
    pub(super) fn is_of_one(&self, observation: &Observation) -> bool {
        let Self::Container { index, .. } = self else { return observation.guests.len() == 1 };
        let inside = |mut at: usize| {
            while at > *index {
                at = observation.containers.get(at).map_or(0, |view| view.parent);
            }
            at == *index
        };
        observation.guests.iter().filter(|view| inside(view.container)).take(2).count() == 1
    }
}

/// What a division gave a guest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Bytes, its overhead included.
    pub bytes: u64,
    /// The bound that made it so.
    pub bound: Bound,
    /// The round in which memory ran out; `All` also when it did not.
    pub round: Round,
}

/// Adds what can be used in each round.
pub(super) fn add(sums: &mut Caps, caps: &Caps) {
    sums.iter_mut().zip(caps).for_each(|(sum, cap)| *sum = sum.saturating_add(*cap));
}

/// What a guest can use up to the end of each round, its overhead included.
pub(super) fn guest_caps(view: &GuestView, sense: &Sense, rules: Rules) -> Caps {
    let charged = |bytes: u64| bytes.saturating_add(view.overhead_bytes);
    let keep = if rules.has(Rule::NoPressureNoReclaim) { sense.keep } else { sense.floor };
    let (need, want) = (sense.need.max(sense.kept), sense.want.max(sense.kept));
    [
        charged(sense.floor),
        charged(sense.kept),
        charged(sense.kept),
        charged(sense.kept),
        charged(sense.used.max(sense.kept).min(need)),
        charged(need),
        charged(want),
        charged(want.max(keep)),
        charged(sense.most.max(want)),
    ]
}
