//! The figures of a table, each with its error and its age.

use super::ledger::Ledger;
use super::region::{Region, RegionKind};
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
    /// By page faults of the process, while a comparison ran, that may each have brought a page; as many may have been
    /// given back (engine qemu: releases are not seen).
    Faults = 4,
}

impl ErrorSource {
    pub(super) fn from_bits(bits: u32) -> Self {
        match bits {
            1 => Self::KernelTotal,
            2 => Self::Scan,
            4 => Self::Faults,
            _ => Self::Never,
        }
    }
}

/// Frames by state. Counts are frames of 4 KiB.
///
/// What the `vmm` does itself (inflate, deflate, report) is counted exactly and at once. What the kernel does behind
/// its back (first touch, refault) is found later; until then a frame with host memory is still counted under the state
/// that it had. `error_frames_max` bounds the number of such frames at one moment, `checked_age_ms` ago. Frames that
/// were touched since that moment come on top and are in the next figure.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Frames of all regions that these figures are of.
    pub frames: u64,
    /// Never used, or given back and not used since.
    pub untouched: u64,
    /// Anonymous memory of this guest; in RAM alone.
    pub private: u64,
    /// Pages of the pool that it has mapped; in images alone.
    pub shared: u64,
    /// In the balloon.
    pub ballooned: u64,
    /// Given back by free page reporting.
    pub reported: u64,
    /// Compressed.
    pub compressed: u64,
    /// Written out.
    pub swapped: u64,
    /// Frames of RAM without host memory for an unknown reason: untouched, in the balloon, reported or given back.
    /// None where the `vmm` does that itself (engine kvm).
    #[serde(default)]
    pub unknown: u64,
    /// Frames that no state accounts for, or that two do, or whose state is impossible in their region. In figures that
    /// were counted from blocks or entries also frames whose state is another than by the flows. Must stay 0.
    pub untiled: u64,
    /// Ballooned frames that were found in use again, since boot.
    pub refaults: u64,
    /// Reported frames that were found in use again, since boot: the guest's ordinary way to use them.
    #[serde(default)]
    pub reported_refaults: u64,
    /// Most frames of RAM whose state was not yet what it is for the kernel, `checked_age_ms` ago.
    #[serde(default)]
    pub error_frames_max: u64,
    /// How that bound was obtained.
    #[serde(default)]
    pub error_source: ErrorSource,
    /// Age of that bound, milliseconds; `null` when there was none. A look at the kernel's total renews it.
    #[serde(default)]
    pub checked_age_ms: Option<u64>,
    /// Most pages of images that were mapped and not counted as shared yet, `shared_checked_age_ms` ago. What the
    /// host's kernel takes away by itself, when memory is short, comes on top until the next comparison.
    #[serde(default)]
    pub shared_error_frames_max: u64,
    /// Age of that bound, milliseconds; `null` when there was none.
    #[serde(default)]
    pub shared_checked_age_ms: Option<u64>,
    /// Stores of the guest into images, since boot: each was dropped.
    #[serde(default)]
    pub image_stores: u64,
    /// Frames of images that are zeros now, because their file got shorter while it was mapped.
    #[serde(default)]
    pub image_lost_frames: u64,
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
        self.frames == other.frames
            && self.unknown == other.unknown
            && STATES.iter().all(|state| self.of(*state) == other.of(*state))
    }

    /// Adds the counts of a region, whatever they are, each taken into `0..=frames`; what does not fit or cannot be in
    /// such a region is `untiled`.
    pub(super) fn count(&mut self, region: &Region, counts: &[i128; STATES.len()], residency_only: bool) {
        let of = |state: State| {
            let most = if region.kind.allows(state) { i128::from(region.count) } else { 0 };
            u64::try_from(counts[state as usize].clamp(0, most)).expect("clamped")
        };
        let (mut sum, mut lost) = (0u64, 0u128);
        for state in STATES {
            sum = sum.saturating_add(of(state));
            lost = lost.saturating_add(counts[state as usize].abs_diff(i128::from(of(state))));
        }
        self.frames += region.count;
        match residency_only && region.kind == RegionKind::Ram {
            true => self.unknown += of(State::Untouched),
            false => self.untouched += of(State::Untouched),
        }
        self.private += of(State::Private);
        self.shared += of(State::Shared);
        self.ballooned += of(State::Ballooned);
        self.reported += of(State::Reported);
        self.compressed += of(State::Compressed);
        self.swapped += of(State::Swapped);
        // Sums may come out right by accident where counts are impossible.
        let lost = u64::try_from(lost).unwrap_or(u64::MAX).min(region.count);
        self.untiled = self.untiled.saturating_add(sum.abs_diff(region.count).max(lost));
    }

    pub(super) fn flows(&mut self, ledger: &Ledger) {
        let add = |sum: &mut u64, from| *sum = sum.saturating_add(ledger.flow(from, State::Private));
        add(&mut self.refaults, State::Ballooned);
        add(&mut self.reported_refaults, State::Reported);
    }
}
