//! A container of the tree in a decision.

use super::round::{Bound, Caps, ROUNDS};

/// A container.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub parent: usize,
    pub weight: u32,
    /// The smaller of `high` and `max`, at the root also what the host has.
    pub ceiling: u64,
    pub bound: Bound,
    /// What it pays for beside its guests, bytes: that comes before what they may have.
    pub charged: u64,
    /// Up to where its guests' needs to live are, whoever does what. Bytes.
    pub bare: u64,
    /// What its members can use, summed up; without what is charged beside them.
    pub inner: Caps,
    /// What guests inside it can use, without what containers on the way are protected with.
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
    /// What its members may use together.
    pub fn budget(&self) -> u64 {
        self.ceiling.min(self.granted).saturating_sub(self.charged)
    }

    /// What it pays for beside its guests, as far as its own limit goes: beyond that it takes from nobody else's.
    pub fn charged_within(&self) -> u64 {
        self.charged.min(self.ceiling)
    }

    pub fn new(parent: usize, weight: u32, ceiling: u64, bound: Bound) -> Self {
        Self {
            parent,
            weight,
            ceiling,
            bound,
            charged: 0,
            bare: 0,
            inner: [0; ROUNDS],
            plain: [0; ROUNDS],
            caps: [0; ROUNDS],
            granted: 0,
            guests: (0, 0),
            children: (0, 0),
        }
    }
}
