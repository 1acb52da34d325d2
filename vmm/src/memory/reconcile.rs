//! Seeing what the kernel did: first touch, refault, and pages that went away.
//!
//! The kernel populates guest RAM without reporting it. A pass compares the table with the pagemap and mends the table:
//!
//! ```text
//!   snapshot of some blocks  ->  held runs of those blocks  ->  mend what did not change since the snapshot
//! ```
//!
//! Images are compared in the same way: there the question is which pages of their files are mapped.
//!
//! A device may change a frame meanwhile. It releases memory first and records that second, and what changed since the
//! snapshot is left alone: what a device did is newer and wins.

use super::{FRAMES_PER_BLOCK, Images, Pagemap, Ram};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::{FrameTable, Region, RegionKind, Snapshot, State, Transition};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WORDS_PER_BLOCK: usize = 8;
/// Blocks that are compared at once: 256 MiB of guest RAM, at most 256 KiB of snapshot.
const BLOCKS_AT_ONCE: u64 = 128;

/// What a pass looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Blocks where something may have been touched: all but those whose frames are all private, or all shared.
    Touched,
    /// Every block; finds frames whose memory is gone, too.
    Full,
}

/// What a pass found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconciled {
    /// Frames that it looked at.
    pub scanned_frames: u64,
    /// Frames whose state was mended.
    pub mended_frames: u64,
    /// Time that the pass took.
    pub took: Duration,
}

/// Compares a table with the kernel's pagemap.
#[derive(Debug)]
pub struct Comparison {
    /// Regions, each with its address in the process whose pagemap it is.
    slots: Vec<(Region, u64)>,
    /// They keep those addresses what they are.
    _mapped: (Option<Arc<Ram>>, Option<Arc<Images>>),
    table: Arc<FrameTable>,
    pagemap: Pagemap,
    snapshot: Snapshot,
    /// A bit per frame of the snapshot: does the kernel hold it?
    held: Vec<u64>,
}

impl Comparison {
    /// Compares these two, asking the kernel through this pagemap.
    #[must_use]
    pub fn new(ram: Arc<Ram>, table: Arc<FrameTable>, pagemap: Pagemap) -> Self {
        let slots = ram.slots().collect();
        Self { _mapped: (Some(ram), None), ..Self::of_slots(slots, table, pagemap) }
    }

    /// Compares with memory of another process: regions with their addresses there. Where nothing is mapped nothing is
    /// held.
    #[must_use]
    pub fn of_slots(slots: Vec<(Region, u64)>, table: Arc<FrameTable>, pagemap: Pagemap) -> Self {
        Self { slots, _mapped: (None, None), table, pagemap, snapshot: Snapshot::default(), held: Vec::new() }
    }

    /// The same, with these images.
    #[must_use]
    pub fn with_images(self, images: Arc<Images>) -> Self {
        let slots = self.slots.into_iter().chain(images.slots()).collect();
        Self { slots, _mapped: (self._mapped.0, Some(images)), ..self }
    }

    /// One pass over the table.
    ///
    /// # Errors
    /// When the pagemap cannot be read.
    pub fn run(&mut self, pass: Pass) -> io::Result<Reconciled> {
        let started = Instant::now();
        let mut done = Reconciled { scanned_frames: 0, mended_frames: 0, took: Duration::ZERO };
        for index in 0..self.slots.len() {
            let (region, host) = self.slots[index];
            let end = region.first + region.count;
            let mut at = region.first;
            while at < end {
                let run = self.next_run(region.kind, at..end, pass);
                if !run.is_empty() {
                    done.scanned_frames += run.end - run.start;
                    done.mended_frames += self.compare(&region, run.clone(), host)?;
                }
                at = run.end;
            }
        }
        self.table.reconciled();
        done.took = started.elapsed();
        Ok(done)
    }

    /// The first blocks of a part of a region that are to be compared at once.
    fn next_run(&self, kind: RegionKind, part: Range<u64>, pass: Pass) -> Range<u64> {
        let there = if kind == RegionKind::Image { State::Shared } else { State::Private };
        let is_full = |first: u64| self.table.frames_in_block(first, there) == FRAMES_PER_BLOCK;
        let wanted = |first: u64| pass == Pass::Full || !is_full(first);
        let mut start = part.start;
        while start < part.end && !wanted(start) {
            start += FRAMES_PER_BLOCK;
        }
        let most = part.end.min(start + BLOCKS_AT_ONCE * FRAMES_PER_BLOCK);
        let mut end = start;
        while end < most && wanted(end) {
            end += FRAMES_PER_BLOCK;
        }
        start..end
    }

    /// Compares blocks of a region that is at `host`.
    fn compare(&mut self, region: &Region, run: Range<u64>, host: u64) -> io::Result<u64> {
        let count = run.end - run.start;
        let host = host + (run.start - region.first) * FRAME_BYTES;
        self.table.snapshot(run.start, count, &mut self.snapshot);
        self.held.clear();
        self.held.resize(usize::try_from(count / 64).expect("at most 1024"), 0);
        let held = &mut self.held;
        let note = |frames| set_bits(held, frames);
        match region.kind {
            RegionKind::Ram => self.pagemap.held_runs(host, count, note)?,
            RegionKind::Image => self.pagemap.file_runs(host, count, note)?,
        }
        Ok((run.start..run.end)
            .step_by(usize::try_from(FRAMES_PER_BLOCK).expect("512"))
            .zip(self.held.chunks_exact(WORDS_PER_BLOCK))
            .map(|(first, held)| self.mend_block(region.kind, first, held))
            .sum())
    }

    /// Mends one block, as a whole where it is alike, else a call per run of equal changes.
    fn mend_block(&self, kind: RegionKind, first: u64, held: &[u64]) -> u64 {
        let mend = |first, count, transition| {
            self.table.apply_since(&self.snapshot, first, count, transition).changed
        };
        if let Some(state) = self.snapshot.uniform_state(first)
            && held.iter().all(|word| *word == held[0])
            && (held[0] == 0 || held[0] == u64::MAX)
        {
            return mending(kind, state, held[0] != 0)
                .map_or(0, |transition| mend(first, FRAMES_PER_BLOCK, transition));
        }
        let change = |frame: u64| {
            let bit = frame - first;
            let is_held = held[usize::try_from(bit / 64).expect("below 8")] >> (bit % 64) & 1 == 1;
            mending(kind, self.snapshot.state(frame)?, is_held)
        };
        let end = first + FRAMES_PER_BLOCK;
        let (mut mended, mut start, mut open) = (0, first, None);
        for frame in first..end {
            let next = change(frame);
            if next != open {
                mended += open.map_or(0, |transition| mend(start, frame - start, transition));
                (start, open) = (frame, next);
            }
        }
        mended + open.map_or(0, |transition| mend(start, end - start, transition))
    }
}

/// What happened to a frame, given what it was and whether the kernel holds a page for it; `None` if nothing did.
fn mending(kind: RegionKind, state: State, held: bool) -> Option<Transition> {
    match (state, held) {
        (State::Untouched, true) if kind == RegionKind::Image => Some(Transition::Map),
        (State::Shared, false) => Some(Transition::Unmap),
        (State::Untouched | State::Ballooned | State::Reported, true) => Some(Transition::Touch),
        (State::Private, false) => Some(Transition::Vanish),
        _ => None,
    }
}

fn set_bits(words: &mut [u64], frames: Range<u64>) {
    let mut at = frames.start;
    while at < frames.end {
        let stop = frames.end.min((at / 64 + 1) * 64);
        let bits = if stop - at == 64 { u64::MAX } else { ((1 << (stop - at)) - 1) << (at % 64) };
        words[usize::try_from(at / 64).expect("a bit of the vector")] |= bits;
        at = stop;
    }
}
