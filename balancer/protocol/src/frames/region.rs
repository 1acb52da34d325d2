//! The regions of guest-physical memory that a table covers, and what may happen in them.

use super::state::State;

/// What a region is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum RegionKind {
    /// Guest RAM: memory of this guest alone.
    Ram = 0,
    /// An image of the shared pool, which the guest can only read: its frames are untouched or shared.
    Image = 1,
}

impl RegionKind {
    /// The kind with this number.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Self::Ram),
            1 => Some(Self::Image),
            _ => None,
        }
    }

    /// True if a frame of such a region can be in this state.
    #[must_use]
    pub fn allows(self, state: State) -> bool {
        match self {
            Self::Ram => state != State::Shared,
            Self::Image => matches!(state, State::Untouched | State::Shared),
        }
    }
}

/// A region of guest-physical memory in frames (`gpa >> 12`), whole 2 MiB blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First frame.
    pub first: u64,
    /// Number of frames.
    pub count: u64,
    /// What it is.
    pub kind: RegionKind,
}

impl Region {
    /// A region of RAM.
    #[must_use]
    pub const fn ram(first: u64, count: u64) -> Self {
        Self { first, count, kind: RegionKind::Ram }
    }

    /// A region with an image in it.
    #[must_use]
    pub const fn image(first: u64, count: u64) -> Self {
        Self { first, count, kind: RegionKind::Image }
    }

    /// True if a run lies in it as a whole.
    #[must_use]
    pub fn contains(&self, first: u64, count: u64) -> bool {
        first >= self.first && count <= self.count && first - self.first <= self.count - count
    }
}
