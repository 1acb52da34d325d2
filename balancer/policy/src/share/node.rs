//! A container of the tree in a decision.

use super::round::{Bound, Caps, ROUNDS, Round};
use crate::rules::{Rule, Rules};
use protocol::limits::Limits;

/// A container.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub parent: usize,
    pub weight: u32,
    /// The smaller of `high` and `max`; at the root also what the host has.
    pub ceiling: u64,
    pub bound: Bound,
    /// What it is charged in addition to its guests, bytes: that comes before what its guests may have.
    pub charged: u64,
    /// Sum of the hard floors of the guests inside, bytes: what they need to live, whatever they do.
    pub hard_floor: u64,
    /// Sum of what its members can use, without `charged`.
    pub inner: Caps,
    /// Sum of what the guests inside can use, without the protections of the containers between.
    pub plain: Caps,
    /// What it can use itself.
    pub caps: Caps,
    /// What it was given.
    pub granted: u64,
    /// Guests directly in it: a range in `Forest::guests`.
    pub guests: (u32, u32),
    /// Containers directly in it: a range in `Forest::children`.
    pub children: (u32, u32),
}

impl Node {
    pub fn new(parent: usize, weight: u32, ceiling: u64, bound: Bound) -> Self {
        Self {
            parent,
            weight,
            ceiling,
            bound,
            charged: 0,
            hard_floor: 0,
            inner: [0; ROUNDS],
            plain: [0; ROUNDS],
            caps: [0; ROUNDS],
            granted: 0,
            guests: (0, 0),
            children: (0, 0),
        }
    }

    /// What its members may use together.
    pub fn budget(&self) -> u64 {
        self.ceiling.min(self.granted).saturating_sub(self.charged)
    }

    /// What it is charged in addition to its guests, as far as its own limit goes: what exceeds the limit does not
    /// reduce what others have.
    pub fn charged_within(&self) -> u64 {
        self.charged.min(self.ceiling)
    }

    /// Computes its caps from the sums over its members. `limits`: those of the container, if it has any.
    ///
    /// Two things make the order matter. First, caps must not fall from round to round, since a round hands out the
    /// difference of two of them. So both ends are fixed first (`floor`, then `all`), and then each cap is clamped
    /// between the cap of the round before, in its final form, and `all`. Second, a promise of the container (`min`,
    /// `low`) may be larger than what the guests inside use or need. It then raises the later caps as well, which
    /// works only if the promise is applied before they are clamped.
    pub fn set_caps(
        &mut self,
        inner: Caps,
        plain: Caps,
        hard_floor: u64,
        limits: Option<&Limits>,
        rules: Rules,
    ) {
        (self.inner, self.hard_floor) = (inner, hard_floor);
        let charged = |caps: Caps| caps.map(|cap| cap.saturating_add(self.charged));
        let (inner, plain) = (charged(inner), charged(plain));
        // Protection inside a container is divided inside it: outside it counts as far as the container itself is
        // protected.
        let sums = if rules.has(Rule::BoundedProtection) { plain } else { inner };
        let [floor, protected, inner_min, inner_low, used, need, demand, keep, all] =
            sums.map(|cap| cap.min(self.ceiling));
        // Above its ceiling a container gets the hard floors only: a guest that runs out of memory again and again
        // takes from guests under the same limit, never from guests outside.
        let floor = floor.max(hard_floor);
        let all = all.max(floor);
        // It keeps what it has already, and what is reserved inside it, while there is enough.
        let keep = inner[Round::Keep as usize].min(self.ceiling).max(keep);
        // Guests that do not release memory hold it in every round: their neighbours must not bear that alone.
        self.plain =
            [floor, protected, inner_min, inner_low, used, need, demand, keep, all].map(|cap| cap.max(floor));
        let (own_min, own_low) =
            limits.map(|limits| (limits.min_bytes, limits.low_bytes)).unwrap_or_default();
        let protected = protected.clamp(floor, all);
        let min = inner_min.max(own_min).clamp(protected, all);
        // `low` protects memory that is in demand, so it is bounded by the demand before that is clamped.
        let low = inner_low.max(own_low.min(demand)).clamp(min, all);
        let used = used.clamp(low, all);
        let need = need.clamp(used, all);
        let demand = demand.clamp(need, all);
        let keep = keep.clamp(demand, all);
        self.caps = [floor, protected, min, low, used, need, demand, keep, all];
    }
}
