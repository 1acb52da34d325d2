//! The reading side: the balancer. What it reads was written by a process that may be hostile: nothing is trusted.

use super::layout::{self, LayoutError, MAGIC, Mapping, Region, VERSION};
use super::state::{STATES, State};
use super::writer::monotonic_ns;
use crate::bytes::FRAME_BYTES;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;
use utoipa::ToSchema;

/// Readings that are tried before the answer is given as torn.
pub const READ_ATTEMPTS: u32 = 1000;

/// Frames by state, at one moment. Counts are frames of 4 KiB.
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
    /// Frames that no state accounts for, or that two do: `|frames - sum of states|`. Must stay 0.
    pub untiled: u64,
    /// Ballooned frames that were found in use again, since boot.
    pub refaults: u64,
    /// Age of the last comparison with the kernel, milliseconds; `null` when there was none.
    pub reconciled_age_ms: Option<u64>,
    /// True if a writer was at work each time it was read.
    pub torn: bool,
}

/// A guest's frame table, mapped read-only.
pub struct FrameReader {
    mapping: Mapping,
    frames: u64,
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl FrameReader {
    /// Maps a table that another process handed over.
    ///
    /// # Errors
    /// When it is not a sealed, complete table of this version.
    pub fn open(fd: BorrowedFd<'_>) -> Result<Self, LayoutError> {
        // SAFETY: plain system calls on a borrowed descriptor; results are checked.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err(LayoutError::Unsealed);
        }
        // SAFETY: zeroed is a valid stat, and fstat fills it.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: a valid pointer to it; the result is checked.
        if unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) } != 0 {
            return Err(io::Error::last_os_error().into());
        }
        let found = u64::try_from(stat.st_size).unwrap_or(0);
        // The smallest table there is holds one block: map that much first, to learn how long it claims to be.
        let least = layout::table_bytes(512)? as u64;
        if found < least {
            return Err(LayoutError::Truncated { found, expected: least });
        }
        let probe = Mapping::new(fd, 512, false)?;
        let magic = probe.header().magic.load(Acquire);
        if magic != MAGIC {
            return Err(LayoutError::Magic(magic));
        }
        let version = probe.header().version.load(Relaxed);
        if version != VERSION {
            return Err(LayoutError::Version { found: version });
        }
        let frames = layout::check_regions(&probe.regions())?;
        let expected = layout::table_bytes(frames)? as u64;
        if found < expected {
            return Err(LayoutError::Truncated { found, expected });
        }
        Ok(Self { mapping: Mapping::new(fd, frames, false)?, frames })
    }

    /// Bytes of all regions.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        self.frames * FRAME_BYTES
    }

    /// The regions, as the writer describes them now.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        self.mapping.regions()
    }

    /// Totals in O(1).
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.stable(|| std::array::from_fn(|slot| self.mapping.header().totals[slot].load(Relaxed)))
    }

    /// Totals counted from the block summaries: O(blocks), the check of [`Self::totals`].
    #[must_use]
    pub fn totals_from_blocks(&self) -> Totals {
        self.stable(|| {
            let mut sums = [0u64; layout::STATE_SLOTS];
            for block in self.mapping.blocks() {
                for (sum, counter) in sums.iter_mut().zip(block) {
                    *sum += u64::from(counter.load(Relaxed));
                }
            }
            sums
        })
    }

    /// Totals counted frame by frame: O(frames), for tests and audits.
    #[must_use]
    pub fn totals_from_entries(&self) -> Totals {
        self.stable(|| {
            let mut sums = [0u64; layout::STATE_SLOTS];
            for entry in self.mapping.entries() {
                sums[(entry.load(Relaxed) & 7) as usize] += 1;
            }
            sums
        })
    }

    /// Frames that become private by owner id: O(frames).
    #[must_use]
    pub fn private_by_owner(&self) -> std::collections::BTreeMap<u16, u64> {
        let mut frames = std::collections::BTreeMap::new();
        for entry in self.mapping.entries() {
            let entry = entry.load(Relaxed);
            if layout::state_of(entry) == Some(State::Private) {
                *frames.entry(layout::owner_of(entry)).or_default() += 1;
            }
        }
        frames
    }

    fn stable(&self, read: impl Fn() -> [u64; layout::STATE_SLOTS]) -> Totals {
        let sequence = &self.mapping.header().sequence;
        let mut torn = true;
        let mut sums = [0; layout::STATE_SLOTS];
        for _ in 0..READ_ATTEMPTS {
            let before = sequence.load(Acquire);
            sums = read();
            fence(Acquire);
            if before.is_multiple_of(2) && sequence.load(Relaxed) == before {
                torn = false;
                break;
            }
            std::thread::yield_now();
        }
        let header = self.mapping.header();
        let reconciled = header.reconciled_at_ns.load(Relaxed);
        let of = |state: State| sums[state as usize];
        let sum = STATES.iter().fold(0u64, |sum, state| sum.saturating_add(of(*state)));
        Totals {
            frames: self.frames,
            untouched: of(State::Untouched),
            private: of(State::Private),
            shared: of(State::Shared),
            ballooned: of(State::Ballooned),
            reported: of(State::Reported),
            compressed: of(State::Compressed),
            swapped: of(State::Swapped),
            untiled: sum.abs_diff(self.frames),
            refaults: header.refaults.load(Relaxed),
            reconciled_age_ms: (reconciled != 0).then(|| monotonic_ns().saturating_sub(reconciled) / 1_000_000),
            torn,
        }
    }
}
