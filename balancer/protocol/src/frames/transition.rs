//! What can happen to a frame. A writer names a transition, never a pair of states: an illegal pair cannot be written
//! down.

use super::region::RegionKind;
use super::state::State;

/// Something that happens to a frame: from one of [`Transition::sources`] to [`Transition::to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// A scan found host memory behind it: first touch, or a refault of what the guest gave away.
    Touch,
    /// The fault handler gave it memory: first touch, recorded at the moment when it happens.
    Fault,
    /// The guest wrote to a page of the pool and has its own copy now.
    CopyOnWrite,
    /// A scan found the host memory gone.
    Vanish,
    /// Into the balloon; the host memory is released.
    Inflate,
    /// Out of the balloon: the guest may use it again.
    Deflate,
    /// Free page reporting; the host memory is released.
    Report,
    /// A page of the pool is mapped.
    Map,
    /// A page of the pool is unmapped.
    Unmap,
    /// The reclaim ladder compressed it.
    Compress,
    /// The reclaim ladder wrote it out.
    SwapOut,
    /// It came back from the reclaim ladder.
    Restore,
}

/// All transitions.
pub const TRANSITIONS: [Transition; 12] = [
    Transition::Touch,
    Transition::Fault,
    Transition::CopyOnWrite,
    Transition::Vanish,
    Transition::Inflate,
    Transition::Deflate,
    Transition::Report,
    Transition::Map,
    Transition::Unmap,
    Transition::Compress,
    Transition::SwapOut,
    Transition::Restore,
];

impl Transition {
    /// The state that it leads to.
    #[must_use]
    pub const fn to(self) -> State {
        match self {
            Self::Touch | Self::Fault | Self::CopyOnWrite | Self::Restore => State::Private,
            Self::Vanish | Self::Deflate | Self::Unmap => State::Untouched,
            Self::Inflate => State::Ballooned,
            Self::Report => State::Reported,
            Self::Map => State::Shared,
            Self::Compress => State::Compressed,
            Self::SwapOut => State::Swapped,
        }
    }

    /// The states that it may start from.
    #[must_use]
    pub const fn sources(self) -> &'static [State] {
        use State::{Ballooned, Compressed, Private, Reported, Shared, Swapped, Untouched};
        match self {
            Self::Touch | Self::Fault => &[Untouched, Ballooned, Reported],
            Self::CopyOnWrite | Self::Unmap => &[Shared],
            Self::Vanish | Self::Compress => &[Private],
            // The guest gives a frame away whatever the host holds behind it.
            Self::Inflate => &[Untouched, Private, Reported, Compressed, Swapped],
            Self::Report => &[Untouched, Private, Compressed, Swapped],
            Self::Deflate => &[Ballooned],
            Self::Map => &[Untouched],
            Self::SwapOut => &[Private, Compressed],
            Self::Restore => &[Compressed, Swapped],
        }
    }

    /// True if it happens in such a region: pages of the pool come and go in images alone, and nothing else does there.
    #[must_use]
    pub const fn is_legal_in(self, kind: RegionKind) -> bool {
        matches!(kind, RegionKind::Image) == matches!(self, Self::Map | Self::Unmap)
    }

    /// True if what it records was found by a scan and happened some time before.
    #[must_use]
    pub const fn is_found(self) -> bool {
        matches!(self, Self::Touch | Self::CopyOnWrite | Self::Vanish)
    }
}
