//! Flows between states: the totals of a guest's regions, in O(1).
//!
//! `flows[from][to]` counts the frames that ever went from one state to another; a total is what was there at the
//! start, plus what came, less what left. Every flow adds to one state what it takes from another, so that the totals
//! tile whenever they are read. The counters only grow: two equal readings in a row are the flows of one moment, and a
//! reader in another process needs nothing from the writer.

use super::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use super::region::Region;
use super::state::{STATES, State};

/// The counters of a region in the table's header.
pub(super) type Flows = [[AtomicU64; STATES.len()]; STATES.len()];

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ledger([[u64; STATES.len()]; STATES.len()]);

/// Adds frames that left `from` by state for `to`.
pub(super) fn add(flows: &Flows, left: &[u64; STATES.len()], to: State) {
    for (row, frames) in flows.iter().zip(left).filter(|(_, frames)| **frames > 0) {
        row[to as usize].fetch_add(*frames, Release);
    }
}

impl Ledger {
    /// One reading, of several moments if a process writes.
    pub fn read(flows: &Flows) -> Self {
        Self(std::array::from_fn(|from| std::array::from_fn(|to| flows[from][to].load(Acquire))))
    }

    /// The flows of these regions at one moment, or the last of so many attempts and `false`.
    ///
    /// An operation is in the flows when it ends. One that went on from where another had brought a frame may end
    /// before that does, and then a state has less than nothing for a moment: that is not a moment to answer with.
    pub fn settled(flows: &[Flows], regions: &[Region], attempts: u32) -> (Vec<Self>, bool) {
        let read =
            || -> Vec<Self> { flows.iter().zip(regions).map(|(flows, _)| Self::read(flows)).collect() };
        let is_sane = |(ledger, region): (&Self, &Region)| {
            let possible = 0..=i128::from(region.count);
            ledger.totals(region.count).iter().all(|total| possible.contains(total))
        };
        let mut before = read();
        for _ in 0..attempts {
            let now = read();
            if now == before && now.iter().zip(regions).all(is_sane) {
                return (now, true);
            }
            before = now;
            std::hint::spin_loop();
        }
        (before, false)
    }

    /// Frames that ever went from one state to another.
    pub fn flow(&self, from: State, to: State) -> u64 {
        self.0[from as usize][to as usize]
    }

    /// Frames by state, of so many that all began untouched. A hostile table may give anything, also less than nothing.
    pub fn totals(&self, frames: u64) -> [i128; STATES.len()] {
        std::array::from_fn(|state| {
            let start = if state == State::Untouched as usize { i128::from(frames) } else { 0 };
            let came: i128 = self.0.iter().map(|row| i128::from(row[state])).sum();
            let left: i128 = self.0[state].iter().map(|flow| i128::from(*flow)).sum();
            start + came - left
        })
    }
}
