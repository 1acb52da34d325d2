//! Growth: what is free goes to the guests it was freed for. Memory is free when no guest holds it, not when a guest
//! was asked to release it.

use super::{Move, Pause};
use crate::guest::needs::Needs;
use crate::observation::Observation;
use crate::observation::guest::OutOfMemory;
use crate::plan::CHANGE_BYTES_MIN;
use crate::rules::{Rule, Rules};
use crate::share::fill::{Share, fill};
use crate::share::forest::Forest;
use protocol::bytes::FRAME_BYTES;
use protocol::limits::WEIGHT_DEFAULT;

/// Without `Rule::GrowFully`: the part of its RAM by which a guest grows.
const PARTIAL_GROWTH_PART: u64 = 32;

/// What a guest or a container takes of the budget above it, bytes, overheads included. No field is smaller than the
/// one before it.
#[derive(Debug, Clone, Copy, Default)]
struct Claim {
    /// What cannot be given to others: what guests hold or are asked to hold, whichever is more.
    now: u64,
    /// The same once guests have what they need.
    needed: u64,
    /// The same once guests have their shares.
    shared: u64,
}

impl Claim {
    fn all(bytes: u64) -> Self {
        Self { now: bytes, needed: bytes, shared: bytes }
    }

    fn map(self, of: impl Fn(u64) -> u64) -> Self {
        Self { now: of(self.now), needed: of(self.needed), shared: of(self.shared) }
    }

    fn add(&mut self, other: Self) {
        self.now = self.now.saturating_add(other.now);
        self.needed = self.needed.saturating_add(other.needed);
        self.shared = self.shared.saturating_add(other.shared);
    }
}

/// How far the budget of a container goes for the claims of its members.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Not even for what they hold now.
    Exceeded,
    /// For what they hold, and for a part of what they need.
    TowardsNeeds,
    /// For what they need, and for a part of their shares.
    TowardsShares,
    /// For their shares.
    Shares,
}

impl Stage {
    fn of(claim: Claim, budget: u64) -> Self {
        if claim.shared <= budget {
            Self::Shares
        } else if claim.needed <= budget {
            Self::TowardsShares
        } else if claim.now <= budget {
            Self::TowardsNeeds
        } else {
            Self::Exceeded
        }
    }

    /// A member as it takes part in this stage.
    fn member(self, claim: Claim, weight: u32) -> Share {
        let (have, cap) = match self {
            Self::Exceeded => (claim.now, claim.now),
            Self::TowardsNeeds => (claim.now, claim.needed),
            Self::TowardsShares => (claim.needed, claim.shared),
            Self::Shares => (claim.shared, claim.shared),
        };
        Share { have, cap, knee: u64::MAX, weight }
    }
}

/// Sums over the members of a container.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    /// Its members' claims and what it is charged in addition to them.
    inside: Claim,
    /// Its own claim: `inside`, bounded by its limit.
    own: Claim,
    /// The part of `inside.now` without what guests gained by deflating. Only this part can be more than the limit
    /// of the container and still count outside.
    asked: u64,
}

/// Lets guests grow whose share is more than their target, those in need first.
pub(super) fn grant(
    observation: &Observation,
    forest: &Forest,
    needs: &[Needs],
    shares: &[u64],
    moves: &mut [Move],
    rules: Rules,
) {
    let growth = Growth { observation, forest, needs, shares, rules };
    if !moves.iter().enumerate().any(|(i, step)| growth.grows(i, step)) {
        return;
    }
    let claims: Vec<Claim> = moves.iter().enumerate().map(|(i, step)| growth.claim(i, step)).collect();
    let sums = growth.sum_up(&claims);
    growth.hand_out(&claims, &sums, moves);
}

/// What growth depends on, by guest and container.
struct Growth<'a> {
    observation: &'a Observation,
    forest: &'a Forest,
    needs: &'a [Needs],
    shares: &'a [u64],
    rules: Rules,
}

impl Growth<'_> {
    fn grows(&self, guest: usize, step: &Move) -> bool {
        step.pause.is_none() && self.shares[guest] > step.target
    }

    /// How far a guest that grows may grow in the end.
    fn end(&self, guest: usize) -> u64 {
        if self.rules.has(Rule::Reservation) { self.shares[guest] } else { self.needs[guest].ceiling }
    }

    fn claim(&self, guest: usize, step: &Move) -> Claim {
        let (view, needs, target) = (&self.observation.guests[guest], &self.needs[guest], step.target);
        let late = needs.held > target.saturating_add(view.tolerance_bytes());
        let now = if late && self.rules.has(Rule::FreeFirst) { needs.held } else { target };
        let mut shared = target;
        if self.grows(guest, step) {
            shared = self.end(guest);
            if view.memory.target_bytes.is_some() && !self.rules.has(Rule::GrowFully) {
                shared = shared.min(target + view.ram_bytes / PARTIAL_GROWTH_PART);
            }
        }
        let needed = needs.need.clamp(target, shared.max(target));
        let claim = Claim { now, needed: needed.max(now), shared: shared.max(now) };
        claim.map(|bytes| bytes.saturating_add(view.overhead_bytes))
    }

    /// Sums by container, bottom-up.
    fn sum_up(&self, claims: &[Claim]) -> Vec<Sums> {
        let mut sums = vec![Sums::default(); self.forest.nodes.len()];
        for at in (0..sums.len()).rev() {
            let node = &self.forest.nodes[at];
            let (mut inside, mut asked) = (Claim::all(node.charged_within()), node.charged_within());
            for guest in self.forest.guests_of(at) {
                let (view, claim) = (&self.observation.guests[*guest as usize], claims[*guest as usize]);
                let deflated = view.out_of_memory != OutOfMemory::No;
                let least = if deflated { view.hard_floor_bytes() + view.overhead_bytes } else { claim.now };
                inside.add(claim);
                asked = asked.saturating_add(least);
            }
            for child in self.forest.children_of(at) {
                let child = &sums[*child as usize];
                inside.add(child.own);
                asked = asked.saturating_add(child.asked);
            }
            let ceiling = node.ceiling.max(asked);
            sums[at] = Sums { inside, own: inside.map(|bytes| bytes.min(ceiling)), asked };
        }
        sums
    }

    /// Divides what is free, top-down, and moves the guests that grow.
    fn hand_out(&self, claims: &[Claim], sums: &[Sums], moves: &mut [Move]) {
        let mut granted = vec![u64::MAX; sums.len()];
        // Where more is held than there may be, no guest grows: it would keep what it holds only because it holds it.
        let mut blocked = vec![false; sums.len()];
        let (mut members, mut given): (Vec<Share>, Vec<u64>) = (vec![], vec![]);
        for at in 0..sums.len() {
            let (node, inside) = (&self.forest.nodes[at], sums[at].inside);
            let (guests, children) = (self.forest.guests_of(at), self.forest.children_of(at));
            let budget = granted[at].min(node.ceiling);
            blocked[at] = inside.now > budget || at > 0 && blocked[node.parent];
            let stage = Stage::of(inside, budget);
            members.clear();
            members.extend(guests.iter().map(|guest| stage.member(claims[*guest as usize], WEIGHT_DEFAULT)));
            members.extend(children.iter().map(|child| {
                let child = *child as usize;
                stage.member(sums[child].own, self.forest.nodes[child].weight)
            }));
            fill(&members, budget.max(inside.now).saturating_sub(node.charged_within()), 0, &mut given);
            let (to_guests, to_children) = given.split_at(guests.len());
            for (guest, bytes) in guests.iter().zip(to_guests) {
                let guest = *guest as usize;
                if self.grows(guest, &moves[guest]) {
                    let bytes = if blocked[at] { 0 } else { *bytes };
                    moves[guest] = self.grown(guest, bytes, moves[guest].target);
                }
            }
            for (child, bytes) in children.iter().zip(to_children) {
                granted[*child as usize] = *bytes;
            }
        }
    }

    /// The move of a guest that grows from `target` and was given `bytes`, its overhead included.
    fn grown(&self, guest: usize, bytes: u64, target: u64) -> Move {
        let (view, share) = (&self.observation.guests[guest], self.shares[guest]);
        let bytes = bytes.saturating_sub(view.overhead_bytes);
        let grown = (bytes / FRAME_BYTES * FRAME_BYTES).min(self.end(guest)).max(target);
        let is_little = |last: u64| grown > last && grown < last.saturating_add(CHANGE_BYTES_MIN);
        let small = view.memory.target_bytes.is_some_and(is_little)
            && grown < self.needs[guest].ceiling
            && self.rules.has(Rule::Hysteresis);
        // So little is not worth a message. A guest that will have more later waits for that.
        let grown = if small { target } else { grown };
        let waits = grown.saturating_add(CHANGE_BYTES_MIN) <= share;
        let pause = if small && !waits {
            Some(Pause::Small)
        } else if grown < share {
            Some(Pause::WaitsForOthers)
        } else {
            None
        };
        Move { target: grown, pause }
    }
}
