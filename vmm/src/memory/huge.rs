//! Where the kernel may put huge pages: only where nothing is ballooned.
//!
//! A touch in an empty 2 MiB block brings a huge page, and with it host memory for every frame of the block: the frames
//! that the guest gave through its balloon would come back without a deflate, and over its limit. So a block loses the
//! advice for huge pages with its first ballooned frame, and gets it again when the last one has left.

use super::mapping::Advice;
use super::{FRAMES_PER_BLOCK, Ram};
use devices::virtio::balloon::FrameRun;
use protocol::bytes::BLOCK_BYTES;
use protocol::frames::{FrameTable, State};
use std::io;
use std::sync::atomic::Ordering::Relaxed;

/// Blocks without the advice at most: each may cost two mappings of the 65,530 that a process may have
/// (`vm.max_map_count`). Beyond that, huge pages may bring ballooned frames back.
const BLOCKS_MAX: usize = 24_576;

impl Ram {
    /// Brings the advice for huge pages in line with what is ballooned, for the blocks that these runs touch.
    ///
    /// # Errors
    /// When the kernel refuses the advice.
    pub(super) fn follow_balloon(&self, table: &FrameTable, runs: &[FrameRun]) -> io::Result<()> {
        for run in runs {
            let Some(offset) = self.offset(run.first, run.count) else { continue };
            let start = offset / protocol::bytes::FRAME_BYTES;
            let blocks = start / FRAMES_PER_BLOCK..=(start + run.count - 1) / FRAMES_PER_BLOCK;
            // Frames and offsets differ by a whole number of blocks.
            let frame = |block: u64| block * FRAMES_PER_BLOCK + run.first - start;
            let mut pending: Option<(u64, u64, bool)> = None;
            for block in blocks {
                let small = table.frames_in_block(frame(block), State::Ballooned) > 0;
                let changes = self.set_small(block, small);
                pending = match pending {
                    Some((first, last, was)) if changes && was == small && last + 1 == block => {
                        Some((first, block, small))
                    }
                    before => {
                        self.advise_blocks(before)?;
                        changes.then_some((block, block, small))
                    }
                };
            }
            self.advise_blocks(pending)?;
        }
        Ok(())
    }

    /// Notes whether a block is without huge pages. True if that is new.
    fn set_small(&self, block: u64, small: bool) -> bool {
        let flag = &self.small[usize::try_from(block).expect("inside RAM")];
        if flag.load(Relaxed) == small || small && self.small_blocks.load(Relaxed) >= BLOCKS_MAX {
            return false;
        }
        flag.store(small, Relaxed);
        if small {
            self.small_blocks.fetch_add(1, Relaxed);
        } else {
            self.small_blocks.fetch_sub(1, Relaxed);
        }
        true
    }

    fn advise_blocks(&self, blocks: Option<(u64, u64, bool)>) -> io::Result<()> {
        let Some((first, last, small)) = blocks else { return Ok(()) };
        let advice = if small { Advice::Small } else { Advice::Huge };
        match self.mapping.advise(first * BLOCK_BYTES, (last - first + 1) * BLOCK_BYTES, advice) {
            // A kernel without huge pages.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            result => result,
        }
    }
}
