//! The writing side: the guest's `vmm`.

use super::age::{self, TICKS_BETWEEN_RETIRING, TICKS_KEPT};
use super::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Relaxed, Ordering::Release};
use super::block::{Block, Tally};
use super::change::Change;
use super::entry::Entry;
use super::head::{Head, Mode};
use super::layout::{self, BLOCK_FRAMES, FRAMES_PER_BLOCK, Header, LayoutError, MAGIC, Mapping, VERSION};
use super::ledger::{self, Ledger};
use super::region::{Region, RegionKind};
use super::snapshot::Snapshot;
use super::state::{STATES, State};
use super::totals::ErrorSource;
use super::transition::{TRANSITIONS, Transition};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU16};

/// What became of a run of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunOutcome {
    /// Frames that changed their state.
    pub changed: u64,
    /// Frames that were in that state already.
    pub repeated: u64,
    /// Frames that may not go to that state from theirs or in their region, changed since they were seen, or lie in no
    /// region. They stay as they are.
    pub refused: u64,
}

/// The frame table of one guest, writable by any number of threads at once.
pub struct FrameTable {
    mapping: Mapping,
    regions: Vec<Region>,
    fd: OwnedFd,
    owner: AtomicU16,
    stamp: AtomicU8,
    retired_at: AtomicU64,
}

impl std::fmt::Debug for FrameTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameTable").field("regions", &self.regions).finish_non_exhaustive()
    }
}

impl FrameTable {
    /// A table for these regions, every frame untouched.
    ///
    /// # Errors
    /// When the regions are malformed or the system has no memory for the table.
    pub fn new(regions: &[Region]) -> Result<Self, LayoutError> {
        let frames = layout::check_regions(regions)?;
        let bytes = layout::table_bytes(frames)?;
        let fd = sealed_memory(bytes as u64).map_err(io::Error::from)?;
        let mapping = Mapping::new(fd.as_fd(), frames, true)?;
        let header = mapping.header();
        header.regions.iter().zip(regions).for_each(|(cell, region)| cell.store(region));
        header.region_count.store(u32::try_from(regions.len()).expect("at most 18"), Relaxed);
        header.version.store(VERSION, Relaxed);
        // A fresh memfd is zero, and a zero entry inherits from its block: the entries take no memory yet.
        let untouched = Head::new(Entry::new(State::Untouched, 0, age::stamp(0), false), 0, Mode::Uniform);
        for index in 0..mapping.block_count() {
            mapping.block(index).head.store(untouched.bits(), Relaxed);
        }
        header.magic.store(MAGIC, Release);
        let (owner, stamp) = (AtomicU16::new(0), AtomicU8::new(age::stamp(0)));
        Ok(Self { mapping, regions: regions.to_vec(), fd, owner, stamp, retired_at: AtomicU64::new(0) })
    }

    /// The descriptor that is handed to the balancer.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The regions.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// No process will tell this table why a frame of RAM has no host memory: what is not private there is unknown. To
    /// be said before the table is handed over.
    pub fn set_residency_only(&self) {
        self.header().residency_only.store(1, Release);
    }

    /// Who is charged for frames that are touched from now on: an id that the balancer gave.
    pub fn set_owner(&self, owner: u16) {
        self.owner.store(owner, Relaxed);
    }

    /// Frames in a state in all regions of a kind, by all operations that ended.
    #[must_use]
    pub fn total(&self, kind: RegionKind, state: State) -> u64 {
        let of_kind = self.regions.iter().zip(&self.header().flows).filter(|(region, _)| region.kind == kind);
        let total: i128 =
            of_kind.map(|(region, flows)| Ledger::read(flows).totals(region.count)[state as usize]).sum();
        u64::try_from(total.max(0)).unwrap_or(u64::MAX)
    }

    /// State of a frame, `None` outside all regions.
    #[must_use]
    pub fn state(&self, frame: u64) -> Option<State> {
        self.entry(frame).map(Entry::state)
    }

    /// Owner of a frame, `None` outside all regions; 0 for none.
    #[must_use]
    pub fn owner(&self, frame: u64) -> Option<u16> {
        self.entry(frame).map(Entry::owner)
    }

    /// Frames in a state in the block that holds the frame `of`; 0 outside all regions.
    #[must_use]
    pub fn frames_in_block(&self, of: u64, state: State) -> u64 {
        let Some(index) = self.index(of) else { return 0 };
        let frames = self.mapping.block(index / BLOCK_FRAMES).summary()[state as usize];
        u64::try_from(frames).unwrap_or(0)
    }

    /// Records a transition of a run of frames, as far as it is legal from their own states and in their region.
    pub fn apply(&self, first: u64, count: u64, transition: Transition) -> RunOutcome {
        let change = self.change(transition.sources(), transition.to(), transition.is_found());
        let legal = |kind| transition.is_legal_in(kind);
        self.run(first, count, change.to(), legal, |_, block, frames| block.apply(frames, &change))
    }

    /// Puts a run of frames into a state by whatever transition is legal from their own states and in their region.
    pub fn set(&self, first: u64, count: u64, to: State) -> RunOutcome {
        let Some(kind) = self.find(first, count).map(|(index, _)| self.regions[index].kind) else {
            return RunOutcome { refused: count, ..RunOutcome::default() };
        };
        let leads = |transition: &&Transition| transition.to() == to && transition.is_legal_in(kind);
        let sources: Vec<State> =
            TRANSITIONS.iter().filter(leads).flat_map(|transition| transition.sources()).copied().collect();
        let change = self.change(&sources, to, false);
        self.run(first, count, to, |_| true, |_, block, frames| block.apply(frames, &change))
    }

    /// Copies the state of a run of whole blocks, to tell later which frames did not change since.
    /// Nothing is copied if the run is not whole blocks of one region.
    pub fn snapshot(&self, first: u64, count: u64, into: &mut Snapshot) {
        into.restart(first);
        let whole = first.is_multiple_of(FRAMES_PER_BLOCK) && count.is_multiple_of(FRAMES_PER_BLOCK);
        let Some((_, index)) = self.find(first, count).filter(|_| whole) else { return };
        let blocks =
            usize::try_from(count / FRAMES_PER_BLOCK).expect("a run inside a region fits the address space");
        for block in index / BLOCK_FRAMES..index / BLOCK_FRAMES + blocks {
            into.push(self.mapping.block(block));
        }
    }

    /// Records a transition of those frames of a run that did not change since the snapshot; the others are refused.
    pub fn apply_since(
        &self,
        snapshot: &Snapshot,
        first: u64,
        count: u64,
        transition: Transition,
    ) -> RunOutcome {
        let change = self.change(transition.sources(), transition.to(), transition.is_found());
        let before = first.checked_sub(snapshot.first());
        if before.is_none_or(|before| count > snapshot.count() || before > snapshot.count() - count) {
            return RunOutcome { refused: count, ..RunOutcome::default() };
        }
        let base = self.index(snapshot.first()).unwrap_or(0) / BLOCK_FRAMES;
        let legal = |kind| transition.is_legal_in(kind);
        self.run(first, count, change.to(), legal, |index, block, frames| match snapshot.seen(index - base) {
            Some(seen) => block.apply_since(seen, frames, &change),
            None => Tally { refused: frames.len() as u64, ..Tally::default() },
        })
    }

    /// Charges every frame to this owner, whichever container was charged before. Returns the number of frames that
    /// changed.
    pub fn take_charges(&self, to: u16) -> u64 {
        self.rewrite(|entry| {
            (entry.state().is_charged() && entry.owner() != to).then(|| entry.with_owner(to))
        })
    }

    /// Records that all entries were compared with the kernel's view just now.
    pub fn reconciled(&self) {
        self.header().reconciled_at_ns.store(monotonic_ns(), Release);
    }

    /// Records how many frames may have another state for the kernel than here, just now, and how that is known.
    pub fn checked(&self, error_frames_max: u64, source: ErrorSource) {
        let header = self.header();
        header.error_source.store(source as u32, Relaxed);
        // Released after the counts that it is true of.
        header.error_frames.store(error_frames_max, Release);
        header.checked_at_ns.store(monotonic_ns(), Release);
    }

    /// Records how many pages of images may be mapped and not recorded here, just now.
    pub fn checked_images(&self, error_frames_max: u64) {
        let header = self.header();
        header.images_error_frames.store(error_frames_max, Release);
        header.images_checked_at_ns.store(monotonic_ns(), Release);
    }

    /// Counts a store of the guest into an image, which was dropped.
    pub fn note_image_store(&self) {
        self.header().image_stores.fetch_add(1, Relaxed);
    }

    /// Records how many frames of images are zeros because their file got shorter.
    pub fn set_lost_frames(&self, frames: u64) {
        self.header().image_lost_frames.store(frames, Relaxed);
    }

    /// Moves the clock of ages on; `elapsed_ms` since the table was made. One thread does this.
    pub fn tick(&self, elapsed_ms: u64) {
        let tick = elapsed_ms / age::AGE_TICK_MS;
        if tick <= self.header().tick.load(Relaxed) {
            return;
        }
        self.stamp.store(age::stamp(tick), Relaxed);
        self.header().tick.store(tick, Relaxed);
        if tick - self.retired_at.load(Relaxed) >= TICKS_BETWEEN_RETIRING {
            self.retired_at.store(tick, Relaxed);
            let is_old = |stamp| age::ticks_since(stamp, tick).is_some_and(|ticks| ticks > TICKS_KEPT);
            self.rewrite(|entry| is_old(entry.stamp()).then(|| entry.with_stamp(0)));
        }
    }

    #[cfg(test)]
    pub(super) fn mapping_for_test(&self) -> &Mapping {
        &self.mapping
    }

    fn header(&self) -> &Header {
        self.mapping.header()
    }

    fn change(&self, sources: &[State], to: State, found: bool) -> Change {
        Change::new(sources, to, self.owner.load(Relaxed), self.stamp.load(Relaxed), found)
    }

    fn entry(&self, frame: u64) -> Option<Entry> {
        let index = self.index(frame)?;
        self.mapping.block(index / BLOCK_FRAMES).read(index % BLOCK_FRAMES)
    }

    fn rewrite(&self, rewritten: impl Fn(Entry) -> Option<Entry>) -> u64 {
        (0..self.mapping.block_count()).map(|index| self.mapping.block(index).rewrite(&rewritten)).sum()
    }

    /// One block after the other; the ledger is written once.
    fn run(
        &self,
        first: u64,
        count: u64,
        to: State,
        legal: impl Fn(RegionKind) -> bool,
        apply: impl Fn(usize, Block<'_>, Range<usize>) -> Tally,
    ) -> RunOutcome {
        let mut outcome = RunOutcome::default();
        let found = self.find(first, count).filter(|(region, _)| legal(self.regions[*region].kind));
        let Some((region, index)) = found else {
            outcome.refused = count;
            return outcome;
        };
        let header = self.header();
        header.begun.0.fetch_add(1, AcqRel);
        let end = index + usize::try_from(count).expect("a run inside a region fits the address space");
        let mut moved = [0; STATES.len()];
        let mut at = index;
        while at < end {
            let block = at / BLOCK_FRAMES;
            let stop = end.min((block + 1) * BLOCK_FRAMES);
            let start = block * BLOCK_FRAMES;
            let tally = apply(block, self.mapping.block(block), at - start..stop - start);
            for (sum, frames) in moved.iter_mut().zip(tally.moved) {
                *sum += frames;
            }
            outcome.repeated += tally.repeated;
            outcome.refused += tally.refused;
            at = stop;
        }
        ledger::add(&header.flows[region], &moved, to);
        header.ended.0.fetch_add(1, Release);
        outcome.changed = moved.iter().sum();
        outcome
    }

    fn index(&self, frame: u64) -> Option<usize> {
        self.find(frame, 1).map(|(_, index)| index)
    }

    /// The region that holds a run as a whole, and the index of its first frame among all frames.
    fn find(&self, first: u64, count: u64) -> Option<(usize, usize)> {
        let mut before = 0;
        for (index, region) in self.regions.iter().enumerate() {
            if region.contains(first, count) {
                return Some((index, usize::try_from(before + (first - region.first)).ok()?));
            }
            before += region.count;
        }
        None
    }
}

/// Memory of a fixed length, of which a reader can map all without fear of SIGBUS.
fn sealed_memory(bytes: u64) -> rustix::io::Result<OwnedFd> {
    let fd = memfd_create(c"ballast-frames", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, bytes)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// `CLOCK_MONOTONIC`, nanoseconds: the clock that both processes share.
pub(super) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
