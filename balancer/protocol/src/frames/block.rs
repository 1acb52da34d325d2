//! A 2 MiB block: the lock-free heart of the table.
//!
//! A block whose frames are all alike is one word; a frame that differs speaks for itself:
//!
//! ```text
//!   head:     entry E, sequence k, mode              previous: the entry of sequence k-1
//!   entries:  inherits k -> E | inherits k-1 -> previous | live: the frame itself
//!
//!             whole block: one compare-and-swap of E
//!                 +--------+
//!                 v        |    one frame differs: E stands still from now on
//!              uniform ----+-------------------------------> mixed
//!                 ^                                         |  ^
//!                 +---- no write interfered ----- folding <-+  |
//!                                                     |         |
//!                  a write did, or a frame must stay +---------+
//!                                   folding starts with E of sequence k+1
//! ```
//!
//! What makes it right without a lock:
//!
//! * A live entry speaks for its frame in every mode. It changes by compare-and-swap alone, and the writer that
//!   succeeds counts the transition: each is counted once.
//! * An entry that inherits is replaced only while what it inherits stands still: in mode mixed, or as `previous`. A
//!   writer that wants to replace one in another mode first makes the head mixed, which makes the folder's last
//!   compare-and-swap fail.
//! * A sequence number is given out once (in 2^28 folds of a block), and only the folder makes entries inherit. There
//!   is one folder at a time, and it leaves none that inherits from `previous`. No writer waits for it: one that finds
//!   a folder at work goes frame by frame.
//!
//! So an operation repeats a step only when another one succeeded: lock-free. `counts` follow the entries, as signed
//! lanes that may be wrong for the moment in which their writer has changed an entry and not counted it yet.

use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use super::atomic::{AtomicU32, AtomicU64};
use super::change::{Change, Decision};
use super::entry::{Entry, Raw};
use super::head::{Head, Mode};
use super::state::{STATES, State};
use std::ops::Range;

/// Attempts of a reader to catch an entry together with what it inherits.
const DECODE_ATTEMPTS: u32 = 16;
const LANE_BITS: usize = 16;

/// One block of the table.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub head: &'a AtomicU64,
    pub previous: &'a AtomicU32,
    pub counts: &'a [AtomicU64; 2],
    pub entries: &'a [AtomicU32],
}

/// What became of the frames of an operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Frames that changed their state, by the state they left.
    pub moved: [u64; STATES.len()],
    pub repeated: u64,
    pub refused: u64,
}

impl Tally {
    fn note(&mut self, from: State, decision: Decision, frames: u64) {
        match decision {
            Decision::Refuse => self.refused += frames,
            Decision::Keep | Decision::Write { repeated: true, .. } => self.repeated += frames,
            Decision::Write { repeated: false, .. } => self.moved[from as usize] += frames,
        }
    }
}

/// A block as a reader saw it. A block that was being folded shows nothing: the writer that folds it knows better.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen<'a> {
    Uniform(Head),
    Mixed(Head, &'a [u32]),
    Folding,
}

impl Seen<'_> {
    /// The frame as it was seen.
    pub fn entry(&self, frame: usize) -> Option<Entry> {
        match self {
            Self::Uniform(head) => head.entry(),
            Self::Mixed(head, raw) => match Raw::of(*raw.get(frame)?) {
                Raw::Live(entry) => Some(entry),
                Raw::Inherits(sequence) => head.entry().filter(|_| sequence == head.sequence()),
            },
            Self::Folding => None,
        }
    }
}

impl Block<'_> {
    /// Applies a change to frames of the block.
    pub fn apply(&self, frames: Range<usize>, change: &Change) -> Tally {
        let mut tally = Tally::default();
        if frames.len() < self.entries.len() || !self.apply_whole(change, &mut tally) {
            for frame in frames {
                self.apply_one(frame, |entry| change.decide(entry), &mut tally);
            }
        }
        self.count(&tally, change.to());
        tally
    }

    /// Rewrites frames without a change of state.
    pub fn rewrite(&self, rewritten: &impl Fn(Entry) -> Option<Entry>) -> u64 {
        let decide = |from: Entry| match rewritten(from) {
            Some(entry) => Decision::Write { entry: entry.revised(from), repeated: true },
            None => Decision::Refuse,
        };
        let mut tally = Tally::default();
        if !self.swap_head(&decide, &mut tally) {
            for frame in 0..self.entries.len() {
                self.apply_one(frame, decide, &mut tally);
            }
        }
        tally.repeated
    }

    /// Applies a change to those frames that did not change since they were seen; the others are refused.
    pub fn apply_since(&self, seen: Seen<'_>, frames: Range<usize>, change: &Change) -> Tally {
        let mut tally = Tally::default();
        match seen {
            Seen::Uniform(head) if frames.len() == self.entries.len() => {
                self.swap_head_from(head, change, &mut tally)
            }
            _ => {
                for frame in frames {
                    self.apply_one_since(seen, frame, change, &mut tally);
                }
            }
        }
        self.count(&tally, change.to());
        tally
    }

    /// The head as it is now, `None` in a block that is being folded; the entries of a mixed one are appended.
    pub fn see(&self, raw: &mut Vec<u32>) -> Option<Head> {
        let head = Head::from_bits(self.head.load(Acquire));
        match head.mode() {
            Mode::Folding => return None,
            Mode::Mixed => raw.extend(self.entries.iter().map(|cell| cell.load(Acquire))),
            Mode::Uniform => {}
        }
        Some(head)
    }

    /// The frame as it is now; `None` if it could not be caught, or if there is no sense in the table.
    pub fn read(&self, frame: usize) -> Option<Entry> {
        let cell = &self.entries[frame];
        for _ in 0..DECODE_ATTEMPTS {
            let bits = cell.load(Acquire);
            match Raw::of(bits) {
                Raw::Live(entry) => return Some(entry),
                Raw::Inherits(sequence) => {
                    let entry = self.inherited(sequence);
                    // If the cell is still the same, then what it inherits was not reused meanwhile.
                    if entry.is_some() && cell.load(Acquire) == bits {
                        return entry;
                    }
                }
            }
        }
        None
    }

    /// The one entry of a block that is uniform now.
    pub fn uniform(&self) -> Option<Entry> {
        let head = Head::from_bits(self.head.load(Acquire));
        head.entry().filter(|_| head.mode() == Mode::Uniform)
    }

    /// Frames by state from the block's summary. Out of 0..=frames while a writer counts, or in a hostile table.
    pub fn summary(&self) -> [i64; STATES.len()] {
        let mut sums = [0; STATES.len()];
        let mut rest =
            [self.counts[0].load(Acquire).cast_signed(), self.counts[1].load(Acquire).cast_signed()];
        let mut counted = 0;
        for state in &STATES[1..] {
            let word = &mut rest[lane(*state).0];
            // Lanes are signed: what is negative for a moment has borrowed from the lane above.
            let value = i64::from(*word as i16);
            *word = word.wrapping_sub(value) >> LANE_BITS;
            sums[*state as usize] = value;
            counted += value;
        }
        sums[State::Untouched as usize] = self.entries.len() as i64 - counted;
        sums
    }

    fn apply_whole(&self, change: &Change, tally: &mut Tally) -> bool {
        loop {
            let head = Head::from_bits(self.head.load(Acquire));
            match head.mode() {
                Mode::Uniform => return self.swap_head(&|entry| change.decide(entry), tally),
                Mode::Mixed if !head.has_folder() => {
                    let taken = head.with_folder();
                    if self.head.compare_exchange(head.bits(), taken.bits(), AcqRel, Acquire).is_ok() {
                        self.fold(taken, change, tally);
                        return true;
                    }
                }
                Mode::Mixed | Mode::Folding => return false,
            }
        }
    }

    /// Decides all frames of a uniform block at once. False if it is not uniform.
    fn swap_head(&self, decide: &impl Fn(Entry) -> Decision, tally: &mut Tally) -> bool {
        loop {
            let head = Head::from_bits(self.head.load(Acquire));
            let Some(from) = head.entry().filter(|_| head.mode() == Mode::Uniform) else { return false };
            let decision = decide(from);
            if let Decision::Write { entry, .. } = decision {
                let next = head.with_entry(entry).bits();
                if self.head.compare_exchange(head.bits(), next, AcqRel, Acquire).is_err() {
                    continue;
                }
            }
            tally.note(from.state(), decision, self.entries.len() as u64);
            return true;
        }
    }

    fn swap_head_from(&self, seen: Head, change: &Change, tally: &mut Tally) {
        let Some(from) = seen.entry() else { return tally.refused += self.entries.len() as u64 };
        let mut decision = change.decide(from);
        if let Decision::Write { entry, .. } = decision {
            let next = seen.with_entry(entry).bits();
            if self.head.compare_exchange(seen.bits(), next, AcqRel, Acquire).is_err() {
                decision = Decision::Refuse;
            }
        }
        tally.note(from.state(), decision, self.entries.len() as u64);
    }

    fn apply_one(&self, frame: usize, decide: impl Fn(Entry) -> Decision, tally: &mut Tally) {
        let cell = &self.entries[frame];
        let mut bits = cell.load(Acquire);
        loop {
            let raw = Raw::of(bits);
            let from = match raw {
                Raw::Live(entry) => Some(entry),
                Raw::Inherits(sequence) => self.inherited(sequence).filter(|_| cell.load(Acquire) == bits),
            };
            let Some(from) = from else {
                bits = cell.load(Acquire);
                continue;
            };
            let decision = decide(from);
            if let Decision::Write { entry, .. } = decision {
                if let Raw::Inherits(sequence) = raw
                    && !self.freeze(sequence, from)
                {
                    bits = cell.load(Acquire);
                    continue;
                }
                if let Err(now) = cell.compare_exchange(bits, entry.bits(), AcqRel, Acquire) {
                    bits = now;
                    continue;
                }
            }
            return tally.note(from.state(), decision, 1);
        }
    }

    fn apply_one_since(&self, seen: Seen<'_>, frame: usize, change: &Change, tally: &mut Tally) {
        let Some(from) = seen.entry(frame) else { return tally.refused += 1 };
        let mut decision = change.decide(from);
        if let Decision::Write { entry, .. } = decision {
            let (bits, stands) = match seen {
                Seen::Uniform(head) => (Raw::inherits(head.sequence()), self.freeze(head.sequence(), from)),
                Seen::Mixed(_, raw) => (raw[frame], true),
                Seen::Folding => (0, false),
            };
            if !stands || self.entries[frame].compare_exchange(bits, entry.bits(), AcqRel, Acquire).is_err() {
                decision = Decision::Refuse;
            }
        }
        tally.note(from.state(), decision, 1);
    }

    /// What entries under this sequence number inherit now; `None` when that is history.
    fn inherited(&self, sequence: u32) -> Option<Entry> {
        let head = Head::from_bits(self.head.load(Acquire));
        if head.sequence() == sequence {
            head.entry()
        } else if head.sequence() == Raw::next(sequence) {
            Entry::from_bits(self.previous.load(Acquire))
        } else {
            None
        }
    }

    /// Makes what entries under this sequence number inherit stand still, if it still is `entry`.
    fn freeze(&self, sequence: u32, entry: Entry) -> bool {
        loop {
            let head = Head::from_bits(self.head.load(Acquire));
            if head.sequence() != sequence {
                return self.inherited(sequence) == Some(entry);
            }
            if head.entry() != Some(entry) {
                return false;
            }
            let mixed = head.with_mode(Mode::Mixed).bits();
            if head.mode() == Mode::Mixed
                || self.head.compare_exchange(head.bits(), mixed, AcqRel, Acquire).is_ok()
            {
                return true;
            }
        }
    }

    /// Applies a change to all frames of a mixed block that this writer took as its folder, and makes it uniform if all
    /// become alike and no writer interferes.
    fn fold(&self, taken: Head, change: &Change, tally: &mut Tally) {
        let base = taken.entry().expect("the head of an own table names a state");
        self.previous.store(base.bits(), Release);
        let target = change.fresh();
        let folding = Head::new(target, taken.next_sequence(), Mode::Folding).with_folder();
        // No other writer changes a mixed head that has a folder. A swap, as all changes of heads are, keeps them in
        // one order.
        self.head.swap(folding.bits(), AcqRel);
        let mut alike = true;
        for cell in self.entries {
            alike &= Self::fold_one(cell, base, target, folding.sequence(), change, tally);
        }
        let uniform = Head::new(target, folding.sequence(), Mode::Uniform);
        if !alike || self.head.compare_exchange(folding.bits(), uniform.bits(), AcqRel, Acquire).is_err() {
            self.head.swap(uniform.with_mode(Mode::Mixed).bits(), AcqRel);
        }
    }

    /// Changes one frame of a block that is being folded. True if it inherits from the new head now.
    fn fold_one(
        cell: &AtomicU32,
        base: Entry,
        target: Entry,
        sequence: u32,
        change: &Change,
        tally: &mut Tally,
    ) -> bool {
        let mut bits = cell.load(Acquire);
        loop {
            // Only the folder makes entries inherit, so that one that does is of the sequence before.
            let from = match Raw::of(bits) {
                Raw::Live(entry) => entry,
                Raw::Inherits(_) => base,
            };
            let decision = change.decide(from);
            let becomes = if let Decision::Write { entry, .. } = decision { entry } else { from };
            let alike = becomes.says_the_same(target);
            let next = if alike { Raw::inherits(sequence) } else { becomes.bits() };
            if next != bits
                && let Err(now) = cell.compare_exchange(bits, next, AcqRel, Acquire)
            {
                bits = now;
                continue;
            }
            tally.note(from.state(), decision, 1);
            return alike;
        }
    }

    /// Adds what happened to the block's summary.
    fn count(&self, tally: &Tally, to: State) {
        let mut deltas = [0u64; 2];
        for (state, frames) in STATES.iter().zip(tally.moved).filter(|(_, frames)| *frames > 0) {
            let (from_word, from_one) = lane(*state);
            let (to_word, to_one) = lane(to);
            deltas[from_word] = deltas[from_word].wrapping_sub(from_one.wrapping_mul(frames));
            deltas[to_word] = deltas[to_word].wrapping_add(to_one.wrapping_mul(frames));
        }
        for (word, delta) in self.counts.iter().zip(deltas).filter(|(_, delta)| *delta != 0) {
            word.fetch_add(delta, Relaxed);
        }
    }
}

/// Word and unit of a state's lane. Untouched frames are those that nothing else counts.
fn lane(state: State) -> (usize, u64) {
    match state {
        State::Untouched => (0, 0),
        State::Private => (0, 1),
        State::Shared => (0, 1 << LANE_BITS),
        State::Ballooned => (0, 1 << (2 * LANE_BITS)),
        State::Reported => (0, 1 << (3 * LANE_BITS)),
        State::Compressed => (1, 1),
        State::Swapped => (1, 1 << LANE_BITS),
    }
}
