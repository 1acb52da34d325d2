//! The rounds in which a budget is divided (the head of the crate lists them), what a member can use up to the end of
//! each, and what a division gives.

use crate::guest::needs::Needs;
use crate::observation::Observation;
use crate::observation::guest::GuestView;
use crate::rules::{Rule, Rules};

/// The number of rounds.
pub(crate) const ROUNDS: usize = 9;

/// What a member of a container can use up to the end of each round, bytes. It does not fall from round to round.
pub(crate) type Caps = [u64; ROUNDS];

/// A round. Its number is its index in [`Caps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the head of the crate explains them")]
#[repr(u8)]
pub enum Round {
    Floor,
    Vanished,
    Min,
    Low,
    Use,
    Need,
    Demand,
    Keep,
    All,
}

impl Round {
    pub(crate) const ORDER: [Self; ROUNDS] = [
        Self::Floor,
        Self::Vanished,
        Self::Min,
        Self::Low,
        Self::Use,
        Self::Need,
        Self::Demand,
        Self::Keep,
        Self::All,
    ];
}

/// The smallest bound on memory on the way from the root to a member.
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
        /// Index of the container in the observation.
        index: usize,
        /// Bytes.
        bytes: u64,
    },
}

impl Bound {
    /// True if it binds a single guest: it is not divided.
    pub(crate) fn is_of_one(&self, observation: &Observation) -> bool {
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
pub(crate) struct Part {
    /// Bytes, including its overhead.
    pub bytes: u64,
    /// The bound that decided.
    pub bound: Bound,
    /// The round in which memory ran out; `All` also when it did not.
    pub round: Round,
}

/// Adds the caps of a member to a sum.
pub(crate) fn add(sums: &mut Caps, caps: &Caps) {
    sums.iter_mut().zip(caps).for_each(|(sum, cap)| *sum = sum.saturating_add(*cap));
}

/// What a guest can use up to the end of each round, including its overhead.
pub(crate) fn guest_caps(view: &GuestView, needs: &Needs, rules: Rules) -> Caps {
    let charged = |bytes: u64| bytes.saturating_add(view.overhead_bytes);
    let keep = if rules.has(Rule::NoPressureNoReclaim) { needs.keep_target } else { needs.floor };
    let (need, demand) = (needs.need.max(needs.protected), needs.demand.max(needs.protected));
    [
        charged(needs.floor),
        charged(needs.protected),
        charged(needs.protected),
        charged(needs.protected),
        charged(needs.used.max(needs.protected).min(need)),
        charged(need),
        charged(demand),
        charged(demand.max(keep)),
        charged(needs.ceiling.max(demand)),
    ]
}
