//! The reading side: the balancer. What it reads was written by a process that may be hostile: nothing is trusted, no
//! loop waits for the writer, and every loop is as long as the table at most.

use super::age;
use super::atomic::Ordering::{Acquire, Relaxed};
use super::entry::Entry;
use super::layout::{self, BLOCK_FRAMES, LayoutError, MAGIC, Mapping, VERSION};
use super::ledger::Ledger;
use super::region::{Region, RegionKind};
use super::state::{STATES, State};
use super::totals::{ErrorSource, Totals};
use super::writer::monotonic_ns;
use crate::bytes::FRAME_BYTES;
use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

/// Readings of the totals that are tried before the answer is given as torn.
pub const READ_ATTEMPTS: u32 = 1000;
/// The same for counts of blocks and frames, which take longer.
const COUNT_ATTEMPTS: u32 = 10;

/// A frame, as the balancer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Its state.
    pub state: State,
    /// Owner id of the container that is charged; 0 for none.
    pub owner: u16,
    /// How long it has been in that state, milliseconds, a minute exact; `None` for longer than about two hours.
    pub age_ms: Option<u64>,
    /// True if a scan found it: owner and age are those of the scan. False if it was recorded as it happened.
    pub found: bool,
}

/// Frames in a row that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRun {
    /// First frame, guest-physical.
    pub first: u64,
    /// Number of frames.
    pub count: u64,
    /// What they are; `None` where the table makes no sense, as with a state that is impossible in their region.
    pub frame: Option<Frame>,
}

/// A guest's frame table, mapped read-only.
pub struct FrameReader {
    mapping: Mapping,
    regions: Vec<Region>,
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader").field("regions", &self.regions).finish_non_exhaustive()
    }
}

impl FrameReader {
    /// Maps a table that another process handed over.
    ///
    /// # Errors
    /// When it is not a sealed, complete table of this version.
    pub fn open(fd: BorrowedFd<'_>) -> Result<Self, LayoutError> {
        if !fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK)) {
            return Err(LayoutError::Unsealed);
        }
        let stat = fstat(fd).map_err(io::Error::from)?;
        let found = u64::try_from(stat.st_size).unwrap_or(0);
        // The smallest table there is holds one block: map that much first, to learn how long it claims to be.
        let least = layout::table_bytes(layout::FRAMES_PER_BLOCK)? as u64;
        if found < least {
            return Err(LayoutError::Truncated { found, expected: least });
        }
        let probe = Mapping::new(fd, layout::FRAMES_PER_BLOCK, false)?;
        let magic = probe.header().magic.load(Acquire);
        if magic != MAGIC {
            return Err(LayoutError::Magic(magic));
        }
        let version = probe.header().version.load(Relaxed);
        if version != VERSION {
            return Err(LayoutError::Version { found: version });
        }
        // From here on the regions are this copy, whatever the writer makes of its own.
        let regions = probe.regions()?;
        let frames = layout::check_regions(&regions)?;
        let expected = layout::table_bytes(frames)? as u64;
        if found < expected {
            return Err(LayoutError::Truncated { found, expected });
        }
        Ok(Self { mapping: Mapping::new(fd, frames, false)?, regions })
    }

    /// Bytes of RAM: of its regions alone.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        self.frames_of(RegionKind::Ram) * FRAME_BYTES
    }

    /// Bytes of all images that the guest can see.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.frames_of(RegionKind::Image) * FRAME_BYTES
    }

    /// True if it is not known why a frame of RAM has no host memory: `unknown` in the totals.
    #[must_use]
    pub fn is_residency_only(&self) -> bool {
        self.mapping.header().residency_only.load(Relaxed) == 1
    }

    /// The regions, as they were described when the table was opened.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Totals of all regions in O(1), of one moment.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals_after(|| {})
    }

    /// The same; `between` runs after the bounds of the error were read and before the counts are.
    pub(super) fn totals_after(&self, between: impl FnOnce()) -> Totals {
        let bounds = self.bounds();
        between();
        let (ledgers, settled) = self.settled();
        self.with_counts(bounds, &ledgers, &self.sums_of(&ledgers), !settled)
    }

    /// Totals by region in O(1), all of one moment. Errors and ages are those of the whole table.
    #[must_use]
    pub fn totals_by_region(&self) -> Vec<(Region, Totals)> {
        self.totals_and_regions().1
    }

    /// Totals of all regions and of each region in O(1), all of one moment. Errors and ages are those of the whole
    /// table.
    #[must_use]
    pub fn totals_and_regions(&self) -> (Totals, Vec<(Region, Totals)>) {
        let bounds = self.bounds();
        let (ledgers, settled) = self.settled();
        let sums = self.sums_of(&ledgers);
        let of_region = |(index, region): (usize, &Region)| {
            let mut totals = self.with_counts(bounds.clone(), &[], &[], !settled);
            totals.count(region, &sums[index], self.is_residency_only());
            totals.flows(&ledgers[index]);
            (*region, totals)
        };
        let by_region = self.regions.iter().enumerate().map(of_region).collect();
        (self.with_counts(bounds, &ledgers, &sums, !settled), by_region)
    }

    /// Totals counted from the block summaries: O(blocks), the check of [`Self::totals`].
    #[must_use]
    pub fn totals_from_blocks(&self) -> Totals {
        self.counted(|region, first_block| {
            let mut sums = [0i128; STATES.len()];
            for index in first_block..first_block + blocks_of(region) {
                for (sum, frames) in sums.iter_mut().zip(self.mapping.block(index).summary()) {
                    *sum += i128::from(frames);
                }
            }
            sums
        })
    }

    /// Totals counted frame by frame, for tests and audits: O(1) for each block whose frames are alike, O(frames) of
    /// the others.
    #[must_use]
    pub fn totals_from_entries(&self) -> Totals {
        self.counted(|region, first_block| {
            let mut sums = [0i128; STATES.len()];
            self.for_each_entry(region, first_block, &mut |_, count, entry| {
                if let Some(entry) = entry {
                    sums[entry.state() as usize] += i128::from(count);
                }
            });
            sums
        })
    }

    /// Private frames by owner id, as expensive as [`Self::totals_from_entries`].
    #[must_use]
    pub fn private_by_owner(&self) -> BTreeMap<u16, u64> {
        let mut frames = BTreeMap::new();
        for (region, first_block) in self.with_blocks() {
            self.for_each_entry(region, first_block, &mut |_, count, entry| {
                if let Some(entry) = entry.filter(|entry| entry.state() == State::Private) {
                    *frames.entry(entry.owner()).or_default() += count;
                }
            });
        }
        frames
    }

    /// All frames in ascending order, runs of equal ones at once. Each is as it was when it was read. No run crosses
    /// the border of a region.
    pub fn for_each_run(&self, mut visit: impl FnMut(FrameRun)) {
        for (region, first_block) in self.with_blocks() {
            self.for_each_run_of(region, first_block, &mut visit);
        }
    }

    /// The frames of the region that begins with this frame, as [`Self::for_each_run`] visits them. None if none does.
    pub fn for_each_run_in(&self, first: u64, mut visit: impl FnMut(FrameRun)) {
        for (region, first_block) in self.with_blocks().filter(|(region, _)| region.first == first) {
            self.for_each_run_of(region, first_block, &mut visit);
        }
    }

    fn for_each_run_of(&self, region: &Region, first_block: usize, visit: &mut impl FnMut(FrameRun)) {
        let tick = self.mapping.header().tick.load(Relaxed);
        let mut open: Option<(u64, u64, Option<Entry>)> = None;
        let frame_of = |entry: Entry| Frame {
            state: entry.state(),
            owner: entry.owner(),
            age_ms: age::ticks_since(entry.stamp(), tick).map(|ticks| ticks * age::AGE_TICK_MS),
            found: entry.found(),
        };
        let run = |(first, count, entry): (u64, u64, Option<Entry>)| FrameRun {
            first,
            count,
            frame: entry.map(frame_of),
        };
        self.for_each_entry(region, first_block, &mut |first, count, entry| {
            if let Some((_, length, before)) = &mut open
                && before.map(frame_of) == entry.map(frame_of)
            {
                *length += count;
            } else if let Some(done) = open.replace((first, count, entry)) {
                visit(run(done));
            }
        });
        if let Some(done) = open {
            visit(run(done));
        }
    }

    /// First frame, number and entry, a whole block at once where its frames are alike. What cannot be in such a
    /// region is not an entry.
    fn for_each_entry(
        &self,
        region: &Region,
        first_block: usize,
        visit: &mut impl FnMut(u64, u64, Option<Entry>),
    ) {
        let allowed = |entry: &Entry| region.kind.allows(entry.state());
        for index in 0..blocks_of(region) {
            let first = region.first + (index * BLOCK_FRAMES) as u64;
            let block = self.mapping.block(first_block + index);
            if let Some(entry) = block.uniform() {
                visit(first, BLOCK_FRAMES as u64, Some(entry).filter(allowed));
            } else {
                for frame in 0..BLOCK_FRAMES {
                    visit(first + frame as u64, 1, block.read(frame).filter(allowed));
                }
            }
        }
    }

    /// Regions with the index of their first block.
    fn with_blocks(&self) -> impl Iterator<Item = (&Region, usize)> {
        self.regions.iter().scan(0, |next, region| {
            let first = *next;
            *next += blocks_of(region);
            Some((region, first))
        })
    }

    fn frames_of(&self, kind: RegionKind) -> u64 {
        self.regions.iter().filter(|region| region.kind == kind).map(|region| region.count).sum()
    }

    fn settled(&self) -> (Vec<Ledger>, bool) {
        Ledger::settled(&self.mapping.header().flows, &self.regions, READ_ATTEMPTS)
    }

    fn sums_of(&self, ledgers: &[Ledger]) -> Vec<Sums> {
        ledgers.iter().zip(&self.regions).map(|(ledger, region)| ledger.totals(region.count)).collect()
    }

    /// Counts while no process writes, or gives the last attempt as torn. A settled count that comes to other figures
    /// than the flows of the same moment is told as untiled.
    fn counted(&self, count: impl Fn(&Region, usize) -> Sums) -> Totals {
        let header = self.mapping.header();
        for attempt in 1.. {
            let bounds = self.bounds();
            let ended = header.ended.0.load(Acquire);
            let begun = header.begun.0.load(Acquire);
            let counts: Vec<Sums> = self.with_blocks().map(|(region, block)| count(region, block)).collect();
            let ledgers: Vec<Ledger> =
                header.flows.iter().zip(&self.regions).map(|(flows, _)| Ledger::read(flows)).collect();
            let torn = begun != ended || header.begun.0.load(Acquire) != begun;
            if !torn || attempt == COUNT_ATTEMPTS {
                let mut totals = self.with_counts(bounds, &ledgers, &counts, torn);
                if !torn {
                    let flows = self.sums_of(&ledgers);
                    let pairs = counts.iter().flatten().zip(flows.iter().flatten());
                    let apart: u128 = pairs.map(|(count, flow)| count.abs_diff(*flow)).sum();
                    // A frame in the wrong state is missing from one and too much in another.
                    totals.untiled = totals.untiled.max(u64::try_from(apart.div_ceil(2)).unwrap_or(u64::MAX));
                }
                return totals;
            }
            std::thread::yield_now();
        }
        unreachable!("the last attempt returns")
    }

    /// The errors that the table admits to, and their ages. They are read before the counts: a scan corrects the
    /// counts first and publishes a smaller error second, so that counts which are as new as their bound, or newer,
    /// are never further off than it.
    fn bounds(&self) -> Totals {
        let header = self.mapping.header();
        let age_ms = |at: u64| (at != 0).then(|| monotonic_ns().saturating_sub(at) / 1_000_000);
        // The age before the error: an error that is newer than its age only makes that age too large.
        let checked_at = header.checked_at_ns.load(Acquire);
        let images_checked_at = header.images_checked_at_ns.load(Acquire);
        let (error_source, error_frames) = match checked_at {
            0 => (ErrorSource::Never, u64::MAX),
            _ => {
                (ErrorSource::from_bits(header.error_source.load(Relaxed)), header.error_frames.load(Acquire))
            }
        };
        let shared_error = match images_checked_at {
            0 => u64::MAX,
            _ => header.images_error_frames.load(Acquire),
        };
        Totals {
            error_frames_max: error_frames.min(self.frames_of(RegionKind::Ram)),
            error_source,
            checked_age_ms: age_ms(checked_at),
            shared_error_frames_max: shared_error.min(self.frames_of(RegionKind::Image)),
            shared_checked_age_ms: age_ms(images_checked_at),
            reconciled_age_ms: age_ms(header.reconciled_at_ns.load(Acquire)),
            ..Totals::default()
        }
    }

    /// Adds counts to bounds that were read before them.
    fn with_counts(&self, bounds: Totals, ledgers: &[Ledger], counts: &[Sums], torn: bool) -> Totals {
        let header = self.mapping.header();
        let residency_only = header.residency_only.load(Relaxed) == 1;
        let mut totals = Totals {
            image_stores: header.image_stores.load(Relaxed),
            image_lost_frames: header.image_lost_frames.load(Relaxed),
            torn,
            ..bounds
        };
        self.regions
            .iter()
            .zip(counts)
            .for_each(|(region, counts)| totals.count(region, counts, residency_only));
        ledgers.iter().for_each(|ledger| totals.flows(ledger));
        totals
    }
}

/// Frames by state as they were counted, whatever the table says.
type Sums = [i128; STATES.len()];

fn blocks_of(region: &Region) -> usize {
    usize::try_from(region.count / layout::FRAMES_PER_BLOCK).expect("the table is mapped")
}
