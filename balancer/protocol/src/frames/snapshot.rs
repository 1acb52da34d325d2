//! The table as it was before the kernel was scanned.

use super::block::{Block, Seen};
use super::head::{Head, Mode};
use super::layout::{BLOCK_FRAMES, FRAMES_PER_BLOCK};
use super::state::State;

/// A run of whole blocks as they were. What a scan finds is recorded only where nothing changed since: what a device
/// did meanwhile is newer and wins, even if it led to the same state again.
#[derive(Debug, Default)]
pub struct Snapshot {
    first: u64,
    /// By block: its head, `None` if it was being folded, and where its entries begin in `raw` if it was mixed.
    blocks: Vec<(Option<Head>, usize)>,
    raw: Vec<u32>,
}

impl Snapshot {
    pub(super) fn restart(&mut self, first: u64) {
        self.first = first;
        self.blocks.clear();
        self.raw.clear();
    }

    pub(super) fn push(&mut self, block: Block<'_>) {
        let start = self.raw.len();
        self.blocks.push((block.see(&mut self.raw), start));
    }

    /// First frame.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number of frames, whole blocks.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.blocks.len() as u64 * FRAMES_PER_BLOCK
    }

    /// State of a frame as it was; `None` outside, and in a block that a device was just rewriting.
    #[must_use]
    pub fn state(&self, frame: u64) -> Option<State> {
        let offset = usize::try_from(frame.checked_sub(self.first)?).ok()?;
        Some(self.seen(offset / BLOCK_FRAMES)?.entry(offset % BLOCK_FRAMES)?.state())
    }

    /// The state of all frames of the block that begins with this frame, if they were alike.
    #[must_use]
    pub fn uniform_state(&self, first: u64) -> Option<State> {
        let offset = usize::try_from(first.checked_sub(self.first)?).ok()?;
        match self.seen(offset / BLOCK_FRAMES)? {
            Seen::Uniform(head) => Some(head.entry()?.state()),
            Seen::Mixed(..) | Seen::Folding => None,
        }
    }

    pub(super) fn seen(&self, block: usize) -> Option<Seen<'_>> {
        Some(match *self.blocks.get(block)? {
            (None, _) => Seen::Folding,
            (Some(head), _) if head.mode() == Mode::Uniform => Seen::Uniform(head),
            (Some(head), start) => Seen::Mixed(head, &self.raw[start..start + BLOCK_FRAMES]),
        })
    }
}
