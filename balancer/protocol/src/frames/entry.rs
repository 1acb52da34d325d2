//! The 32 bits of a frame.
//!
//! ```text
//!   bit    0    3    4         8           16               32
//!  live    |st+1|fnd | revision |  age stamp |     owner      |   the frame as it is
//!  inherit | 0  |      sequence (28 bits)            | 0      |   the frame is what its block says, see `block`
//! ```
//!
//! All zero inherits from the block's first sequence, so that a fresh memfd is a table and takes no memory yet.

use super::state::State;

const FOUND: u32 = 1 << 3;
const REVISION_SHIFT: u32 = 4;
const REVISION_MASK: u32 = 0xf << REVISION_SHIFT;
const STAMP_SHIFT: u32 = 8;
const OWNER_SHIFT: u32 = 16;
/// Bits of a block's sequence number.
pub(super) const SEQUENCE_MASK: u32 = (1 << 28) - 1;

/// A frame as it is: state, owner, stamp of its age, how it was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u32);

/// What an entry's cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Raw {
    Live(Entry),
    /// The frame is what the block said under this sequence number.
    Inherits(u32),
}

impl Raw {
    pub fn of(bits: u32) -> Self {
        if bits & 7 == 0 { Self::Inherits(bits >> 3 & SEQUENCE_MASK) } else { Self::Live(Entry(bits)) }
    }

    /// The sequence number after this one.
    pub fn next(sequence: u32) -> u32 {
        sequence.wrapping_add(1) & SEQUENCE_MASK
    }

    pub fn inherits(sequence: u32) -> u32 {
        (sequence & SEQUENCE_MASK) << 3
    }
}

impl Entry {
    pub fn new(state: State, owner: u16, stamp: u8, found: bool) -> Self {
        let found = if found { FOUND } else { 0 };
        Self((state as u32 + 1) | found | u32::from(stamp) << STAMP_SHIFT | u32::from(owner) << OWNER_SHIFT)
    }

    /// An entry in bits that anybody may have written; `None` if they name no state.
    pub fn from_bits(bits: u32) -> Option<Self> {
        (bits & 7 != 0).then_some(Self(bits))
    }

    pub fn bits(self) -> u32 {
        self.0
    }

    /// Total: three bits less one are the seven states.
    pub fn state(self) -> State {
        State::from_bits((self.0 & 7).wrapping_sub(1)).unwrap_or(State::Untouched)
    }

    pub fn owner(self) -> u16 {
        u16::try_from(self.0 >> OWNER_SHIFT).expect("16 bits are left")
    }

    /// Tick modulo 255 and plus one at which it entered its state; 0 for longer ago than stamps tell.
    pub fn stamp(self) -> u8 {
        u8::try_from(self.0 >> STAMP_SHIFT & 0xff).expect("8 bits are left")
    }

    /// True if a scan found it, later than it happened.
    pub fn found(self) -> bool {
        self.0 & FOUND != 0
    }

    /// The same with another stamp.
    pub fn with_stamp(self, stamp: u8) -> Self {
        Self(self.0 & !(0xff << STAMP_SHIFT) | u32::from(stamp) << STAMP_SHIFT)
    }

    /// The same with another owner.
    pub fn with_owner(self, owner: u16) -> Self {
        Self(self.0 & 0xffff | u32::from(owner) << OWNER_SHIFT)
    }

    /// The same with the revision after `before`'s, so that a thread that saw `before` notices the change.
    pub fn revised(self, before: Self) -> Self {
        let next = before.0.wrapping_add(1 << REVISION_SHIFT) & REVISION_MASK;
        Self(self.0 & !REVISION_MASK | next)
    }

    /// True if nothing but the revision differs.
    pub fn says_the_same(self, other: Self) -> bool {
        (self.0 ^ other.0) & !REVISION_MASK == 0
    }
}
