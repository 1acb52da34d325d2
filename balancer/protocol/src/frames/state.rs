//! The states of a frame.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// State of a guest-physical frame. What leads from one to another is a [`Transition`](super::Transition).
///
/// ```text
///             first touch           inflate             deflate
///  untouched ------------> private ---------> ballooned ---------> untouched
///      ^                   |  ^  ^                 |
///      | the kernel has no |  |  +-----------------+  touched again: a refault
///      +-- page for it ----+  |
///                             |
///                          reported   report goes down, touched again goes up
/// ```
///
/// A guest may also give what it never used: from untouched straight to ballooned or reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum State {
    /// Never used, or given back and not used since: no host memory.
    Untouched = 0,
    /// Anonymous host memory of this guest alone.
    Private = 1,
    /// A page of the shared pool: host memory once per host.
    Shared = 2,
    /// In the balloon: no host memory.
    Ballooned = 3,
    /// Given back by free page reporting: no host memory.
    Reported = 4,
    /// Compressed by the reclaim ladder: little host memory.
    Compressed = 5,
    /// Written out by the reclaim ladder: no host memory.
    Swapped = 6,
}

/// All states, in the order of their numbers.
pub const STATES: [State; 7] = [
    State::Untouched,
    State::Private,
    State::Shared,
    State::Ballooned,
    State::Reported,
    State::Compressed,
    State::Swapped,
];

impl State {
    /// The state with this number.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        STATES.get(usize::try_from(bits).ok()?).copied()
    }

    /// True if a container is charged for a frame in this state: its content belongs to one container.
    #[must_use]
    pub fn is_charged(self) -> bool {
        matches!(self, Self::Private | Self::Compressed | Self::Swapped)
    }
}
