//! A block that lives in loom's memory.

use super::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use super::block::{Block, Tally};
use super::change::Change;
use super::entry::{Entry, Raw};
use super::head::{Head, Mode};
use super::state::{STATES, State};
use super::transition::Transition;
use std::ops::Range;

pub const FRAMES: usize = 2;

pub struct Table {
    head: AtomicU64,
    previous: AtomicU32,
    counts: [AtomicU64; 2],
    entries: [AtomicU32; FRAMES],
}

/// What one writer counted, to be compared with what is there in the end.
#[derive(Debug, Default, Clone, Copy)]
pub struct Flows([[i64; STATES.len()]; STATES.len()]);

impl Flows {
    pub fn note(&mut self, tally: &Tally, to: State) -> &mut Self {
        for (from, frames) in tally.moved.iter().enumerate() {
            self.0[from][to as usize] += *frames as i64;
        }
        self
    }

    pub fn and(mut self, other: &Self) -> Self {
        for (row, others) in self.0.iter_mut().zip(other.0) {
            for (flow, other) in row.iter_mut().zip(others) {
                *flow += other;
            }
        }
        self
    }

    fn total(&self, state: usize) -> i64 {
        let start = if state == 0 { FRAMES as i64 } else { 0 };
        start + self.0.iter().map(|row| row[state]).sum::<i64>() - self.0[state].iter().sum::<i64>()
    }
}

pub fn change(transition: Transition, owner: u16) -> Change {
    Change::new(transition.sources(), transition.to(), owner, 1, transition.is_found())
}

impl Table {
    /// All frames untouched, uniform.
    pub fn new() -> Self {
        let head = Head::new(Entry::new(State::Untouched, 0, 1, false), 0, Mode::Uniform);
        Self {
            head: AtomicU64::new(head.bits()),
            previous: AtomicU32::new(0),
            counts: [AtomicU64::new(0), AtomicU64::new(0)],
            entries: std::array::from_fn(|_| AtomicU32::new(Raw::inherits(0))),
        }
    }

    pub fn block(&self) -> Block<'_> {
        Block { head: &self.head, previous: &self.previous, counts: &self.counts, entries: &self.entries }
    }

    pub fn apply(&self, frames: Range<usize>, transition: Transition, owner: u16) -> Flows {
        let mut flows = Flows::default();
        let tally = self.block().apply(frames.clone(), &change(transition, owner));
        let sum = tally.moved.iter().sum::<u64>() + tally.repeated + tally.refused;
        assert_eq!(sum, frames.len() as u64, "each frame is decided once");
        *flows.note(&tally, transition.to())
    }

    /// When no thread writes any more, three ways of counting come to the same, and no entry hangs in the air.
    pub fn check(&self, flows: &Flows) {
        let mut counted = [0; STATES.len()];
        for frame in 0..FRAMES {
            let entry = self.block().read(frame).expect("every frame is something");
            counted[entry.state() as usize] += 1;
        }
        assert_eq!(self.block().summary(), counted, "summary and entries");
        for (state, frames) in counted.iter().enumerate() {
            assert_eq!(flows.total(state), *frames, "flows and entries of {:?}", STATES[state]);
        }
        let head = Head::from_bits(self.head.load(Relaxed));
        assert!(!head.has_folder(), "the folder went");
        for cell in &self.entries {
            match Raw::of(cell.load(Relaxed)) {
                Raw::Inherits(sequence) => assert_eq!(sequence, head.sequence(), "nobody inherits history"),
                Raw::Live(_) => assert_eq!(head.mode(), Mode::Mixed, "a live entry in a uniform block"),
            }
        }
    }
}
