//! The word in front of a 2 MiB block.
//!
//! ```text
//!  bit   0              32              60     62      63
//!        | entry        | sequence      | mode | folder |
//! ```

use super::entry::{Entry, Raw, SEQUENCE_MASK};

const SEQUENCE_SHIFT: u32 = 32;
const MODE_SHIFT: u32 = 60;
const FOLDER: u64 = 1 << 62;

/// How much the head says of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Every frame inherits: the block is what the head's entry says. That entry may change.
    Uniform = 0,
    /// One writer is making it uniform; its entry stands still.
    Folding = 1,
    /// Some frames speak for themselves; the head's entry stands still for those that inherit.
    Mixed = 2,
}

/// A head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head(u64);

impl Head {
    pub fn new(entry: Entry, sequence: u32, mode: Mode) -> Self {
        let sequence = u64::from(sequence & SEQUENCE_MASK);
        Self(u64::from(entry.bits()) | sequence << SEQUENCE_SHIFT | (mode as u64) << MODE_SHIFT)
    }

    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub fn bits(self) -> u64 {
        self.0
    }

    /// `None` only in a table that another program wrote.
    pub fn entry(self) -> Option<Entry> {
        Entry::from_bits((self.0 & 0xffff_ffff) as u32)
    }

    pub fn sequence(self) -> u32 {
        (self.0 >> SEQUENCE_SHIFT) as u32 & SEQUENCE_MASK
    }

    pub fn next_sequence(self) -> u32 {
        Raw::next(self.sequence())
    }

    pub fn mode(self) -> Mode {
        match self.0 >> MODE_SHIFT & 3 {
            0 => Mode::Uniform,
            1 => Mode::Folding,
            _ => Mode::Mixed,
        }
    }

    /// True while a writer folds, or cleans up after it tried to.
    pub fn has_folder(self) -> bool {
        self.0 & FOLDER != 0
    }

    pub fn with_folder(self) -> Self {
        Self(self.0 | FOLDER)
    }

    pub fn with_mode(self, mode: Mode) -> Self {
        Self(self.0 & !(3 << MODE_SHIFT) | (mode as u64) << MODE_SHIFT)
    }

    /// The same with another entry.
    pub fn with_entry(self, entry: Entry) -> Self {
        Self(self.0 >> SEQUENCE_SHIFT << SEQUENCE_SHIFT | u64::from(entry.bits()))
    }
}
