//! The states of a frame and the transitions between them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// State of a guest-physical frame.
///
/// ```text
///              first touch                 inflate
///  untouched ---------------> private ---------------> ballooned ---deflate---> untouched
///      ^                       ^  |  ^                     |
///      |      reported <-report-+  |  +---- touched again --+   (a refault: the guest took it back)
///      |          |  touched again |
///      +----------+----------------+  the host has no page behind it any more
/// ```
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

    /// True if the host holds a page of its own for a frame in this state.
    #[must_use]
    pub fn holds_host_memory(self) -> bool {
        matches!(self, Self::Private)
    }

    /// True if a frame may go from this state to the other in one step.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        use State::{Ballooned, Compressed, Private, Reported, Shared, Swapped, Untouched};
        match (self, to) {
            // Anything can be touched, anything resident can be found gone.
            (Untouched | Shared | Ballooned | Reported | Compressed | Swapped, Private) | (Private | Shared, Untouched) => true,
            // The guest gives a frame away whatever the host holds behind it.
            (Untouched | Private | Reported | Compressed | Swapped, Ballooned) => true,
            (Untouched | Private | Compressed | Swapped, Reported) => true,
            // Deflate: the guest may use it again.
            (Ballooned, Untouched) => true,
            // The pool and the reclaim ladder.
            (Untouched, Shared) | (Private, Compressed | Swapped) | (Compressed, Swapped) => true,
            _ => false,
        }
    }
}
