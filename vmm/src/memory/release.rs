//! Releasing host memory: the one place where it happens.
//!
//! The backing is private anonymous memory, so `MADV_DONTNEED` frees pages and the next touch reads zeros. Two traps:
//!
//! * On a memfd `MADV_DONTNEED` frees nothing and returns success. Guest RAM is not a memfd; a change that makes it one
//!   has to change this file.
//! * Of a 2 MiB page that is released in part the kernel only removes the mapping: resident memory falls, the huge page
//!   stays allocated and charged until memory is short. `MADV_FREE` of a part splits the page itself
//!   (`madvise_free_huge_pmd` in mm/huge_memory.c), and then `MADV_DONTNEED` frees the 4 KiB pages for good.

use super::mapping::Advice;
use super::pagemap::Pagemap;
use super::{FRAMES_PER_BLOCK, Ram};
use protocol::bytes::{BLOCK_BYTES, FRAME_BYTES};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// The outcome of a release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Released {
    /// Bytes that the host held before and does not hold now.
    pub bytes: u64,
    /// Huge pages that were split because only a part of them was released.
    pub split_blocks: u64,
}

/// Frames that were released since boot: counted before the kernel frees them, and after.
#[derive(Debug, Default)]
pub(super) struct Releases {
    pub begun: AtomicU64,
    pub ended: AtomicU64,
}

impl Ram {
    /// Releases the host memory behind a run of frames.
    ///
    /// # Errors
    /// When the run is not RAM or the kernel refuses. Pages that were freed before the refusal stay free, which does no
    /// harm: the guest gave them.
    pub fn release(&self, pagemap: &Pagemap, first: u64, count: u64) -> io::Result<Released> {
        let (Some(host), Some(offset)) = (self.host(first, count), self.offset(first, count)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the run is not guest RAM"));
        };
        if count == 0 {
            return Ok(Released::default());
        }
        let held = pagemap.count_held(host, count)?;
        let mut released = Released { bytes: held * FRAME_BYTES, split_blocks: 0 };
        if held == 0 {
            return Ok(released);
        }
        let start = offset / FRAME_BYTES;
        let end = start + count;
        self.releases.begun.fetch_add(held, Release);
        for block in [start / FRAMES_PER_BLOCK, (end - 1) / FRAMES_PER_BLOCK] {
            released.split_blocks += u64::from(self.split_if_partial(pagemap, block, start, end)?);
        }
        self.mapping.advise(offset, count * FRAME_BYTES, Advice::Release)?;
        self.releases.ended.fetch_add(held, Release);
        for block in start.div_ceil(FRAMES_PER_BLOCK)..end / FRAMES_PER_BLOCK {
            // Empty now: the next touch may bring a new huge page.
            self.maybe_huge[usize::try_from(block).expect("inside RAM")].store(true, Relaxed);
        }
        Ok(released)
    }

    /// Splits the huge page behind a block of which `start..end` covers a part. True if there was one to split.
    ///
    /// Since Linux 6.12 pages of zeros are not kept when a huge page is split. They are counted as released: otherwise
    /// they would hide as many touches. The next comparison records that their frames are untouched.
    fn split_if_partial(&self, pagemap: &Pagemap, block: u64, start: u64, end: u64) -> io::Result<bool> {
        let (block_start, block_end) = (block * FRAMES_PER_BLOCK, (block + 1) * FRAMES_PER_BLOCK);
        let (from, to) = (start.max(block_start), end.min(block_end));
        let flag = &self.maybe_huge[usize::try_from(block).expect("inside RAM")];
        if to - from == FRAMES_PER_BLOCK || !flag.swap(false, Relaxed) {
            return Ok(false);
        }
        // One page of the part is enough: the kernel splits the whole page to free it lazily.
        let block_host = self.mapping.address() + block * BLOCK_BYTES;
        let before = pagemap.count_held(block_host, FRAMES_PER_BLOCK)?;
        self.mapping.advise(from * FRAME_BYTES, FRAME_BYTES, Advice::ReleaseLazily)?;
        let zeros = before.saturating_sub(pagemap.count_held(block_host, FRAMES_PER_BLOCK)?);
        self.releases.begun.fetch_add(zeros, Release);
        self.releases.ended.fetch_add(zeros, Release);
        Ok(true)
    }
}
