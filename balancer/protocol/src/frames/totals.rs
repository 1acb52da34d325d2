//! The figures of a table, each with its error and its age.

use super::ledger::Ledger;
use super::state::{STATES, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How the error of a table's figures is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u32)]
pub enum ErrorSource {
    /// The table was never compared with the kernel: every frame may be wrong.
    #[default]
    Never = 0,
    /// By the kernel's total of the process: memory that it gave out since the last comparison began.
    KernelTotal = 1,
    /// The kernel's total cannot be read: frames that a comparison could still find changed.
    Scan = 2,
    /// First touch is seen as it happens, there is nothing to find (strict mode).
    Strict = 3,
}

impl ErrorSource {
    pub(super) fn from_bits(bits: u32) -> Self {
        match bits {
            1 => Self::KernelTotal,
            2 => Self::Scan,
            3 => Self::Strict,
            _ => Self::Never,
        }
    }
}

/// Frames by state. Counts are frames of 4 KiB.
///
/// What the `vmm` does itself (inflate, deflate, report) is counted exactly and at once. What the kernel does behind its
/// back (first touch, refault) is found later; until then a frame with host memory is still counted under the state that
/// it had. `error_frames_max` bounds the number of such frames at one moment, `checked_age_ms` ago. Frames that were
/// touched since that moment come on top and are in the next figure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Frames of all regions.
    pub frames: u64,
    /// Never used, or given back and not used since.
    pub untouched: u64,
    /// Anonymous memory of this guest.
    pub private: u64,
    /// Pages of the pool.
    pub shared: u64,
    /// In the balloon.
    pub ballooned: u64,
    /// Given back by free page reporting.
    pub reported: u64,
    /// Compressed.
    pub compressed: u64,
    /// Written out.
    pub swapped: u64,
    /// Frames that no state accounts for, or that two do: `|frames - sum of states|`. In figures that were counted from
    /// blocks or entries also frames whose state is another than by the flows. Must stay 0.
    pub untiled: u64,
    /// Ballooned frames that were found in use again, since boot.
    pub refaults: u64,
    /// Reported frames that were found in use again, since boot: the guest's ordinary way to use them.
    #[serde(default)]
    pub reported_refaults: u64,
    /// Most frames whose state was not yet what it is for the kernel, `checked_age_ms` ago.
    #[serde(default)]
    pub error_frames_max: u64,
    /// How that bound was obtained.
    #[serde(default)]
    pub error_source: ErrorSource,
    /// Age of that bound, milliseconds; `null` when there was none. A look at the kernel's total renews it.
    #[serde(default)]
    pub checked_age_ms: Option<u64>,
    /// Age of the last comparison frame by frame, milliseconds; `null` when there was none.
    pub reconciled_age_ms: Option<u64>,
    /// True if the counts are not of one moment: a writer was at work each time they were read.
    pub torn: bool,
}

impl Totals {
    /// Frames in a state.
    #[must_use]
    pub fn of(&self, state: State) -> u64 {
        match state {
            State::Untouched => self.untouched,
            State::Private => self.private,
            State::Shared => self.shared,
            State::Ballooned => self.ballooned,
            State::Reported => self.reported,
            State::Compressed => self.compressed,
            State::Swapped => self.swapped,
        }
    }

    /// True if two ways of counting came to the same frames by state.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        self.frames == other.frames && STATES.iter().all(|state| self.of(*state) == other.of(*state))
    }

    /// Takes the counts, whatever they are, into `0..=frames`; what does not fit is `untiled`.
    pub(super) fn count(&mut self, frames: u64, counts: &[i128; STATES.len()]) {
        let of = |state: State| {
            u64::try_from(counts[state as usize].clamp(0, i128::from(frames))).expect("clamped")
        };
        let sum = STATES.iter().fold(0u64, |sum, state| sum.saturating_add(of(*state)));
        self.frames = frames;
        self.untouched = of(State::Untouched);
        self.private = of(State::Private);
        self.shared = of(State::Shared);
        self.ballooned = of(State::Ballooned);
        self.reported = of(State::Reported);
        self.compressed = of(State::Compressed);
        self.swapped = of(State::Swapped);
        self.untiled = sum.abs_diff(frames);
    }

    pub(super) fn flows(&mut self, ledger: &Ledger) {
        self.refaults = ledger.flow(State::Ballooned, State::Private);
        self.reported_refaults = ledger.flow(State::Reported, State::Private);
    }
}
