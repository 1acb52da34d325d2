//! What an operation does to one frame.

use super::entry::Entry;
use super::state::State;

/// An operation on frames, each decided by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    sources: u8,
    to: State,
    owner: u16,
    stamp: u8,
    found: bool,
}

/// What becomes of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It stays as it is: it may not go there from its state.
    Refuse,
    /// It is there already, and nothing is to be written.
    Keep,
    /// It becomes this. `repeated` if its state stays the same.
    Write { entry: Entry, repeated: bool },
}

impl Change {
    pub fn new(sources: &[State], to: State, owner: u16, stamp: u8, found: bool) -> Self {
        let sources = sources.iter().fold(0, |mask, state| mask | 1 << *state as u8);
        Self { sources, to, owner, stamp, found }
    }

    pub fn to(&self) -> State {
        self.to
    }

    /// What a frame becomes that has no history to keep.
    pub fn fresh(&self) -> Entry {
        let owner = if self.to.is_charged() { self.owner } else { 0 };
        Entry::new(self.to, owner, self.stamp, self.found)
    }

    pub fn decide(&self, from: Entry) -> Decision {
        let state = from.state();
        if state == self.to {
            // A frame that is given a second time may have had memory again, and was released again: a scan from before
            // that must not be believed any more, so the entry changes. Nothing else does by being repeated.
            return if matches!(self.to, State::Ballooned | State::Reported) {
                Decision::Write { entry: self.fresh().revised(from), repeated: true }
            } else {
                Decision::Keep
            };
        }
        if self.sources & 1 << state as u8 == 0 {
            return Decision::Refuse;
        }
        let entry = if state.is_charged() && self.to.is_charged() {
            // First touch decides who is charged, until the frame is released.
            self.fresh().with_owner(from.owner())
        } else {
            self.fresh()
        };
        Decision::Write { entry: entry.revised(from), repeated: false }
    }
}
