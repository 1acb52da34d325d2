//! Giving host memory back: the one place where it happens.
//!
//! The backing is private anonymous memory, so `MADV_DONTNEED` frees pages and the next touch reads zeros. Two traps:
//!
//! * On a memfd `MADV_DONTNEED` frees nothing and returns success. There is none here; whoever adds one changes this file.
//! * Of a 2 MiB page that is released in part the kernel only takes the mapping away: resident memory falls, the huge
//!   page stays allocated and charged until memory is short. `MADV_FREE` of a part splits the page itself
//!   (`madvise_free_huge_pmd` in mm/huge_memory.c), and then `MADV_DONTNEED` frees the 4 KiB pages for good.

use super::pagemap::Pagemap;
use super::{FRAMES_PER_BLOCK, Ram};
use protocol::bytes::{BLOCK_BYTES, FRAME_BYTES};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// What a release brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Released {
    /// Bytes that the host held before and does not hold now.
    pub bytes: u64,
    /// Huge pages that were split because only a part of them was given.
    pub split_blocks: u64,
}

/// Frames that were released since boot: counted before the kernel takes them, and after.
#[derive(Debug, Default)]
pub(super) struct Releases {
    pub begun: AtomicU64,
    pub ended: AtomicU64,
}

impl Ram {
    /// Gives the host memory behind a run of frames back.
    ///
    /// # Errors
    /// When the run is not RAM or the kernel refuses; what was freed by then is gone, which harms nobody: the guest gave it.
    pub fn release(&self, pagemap: &Pagemap, first: u64, count: u64) -> io::Result<Released> {
        let (Some(host), Some(offset)) = (self.host(first, count), self.offset(first, count)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the run is not guest RAM"));
        };
        if count == 0 {
            return Ok(Released::default());
        }
        let held = pagemap.count_held(host.as_ptr() as u64, count)?;
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
        advise(host, count * FRAME_BYTES, libc::MADV_DONTNEED)?;
        self.releases.ended.fetch_add(held, Release);
        for block in start.div_ceil(FRAMES_PER_BLOCK)..end / FRAMES_PER_BLOCK {
            // Empty now: the next touch may bring a new huge page.
            self.maybe_huge[usize::try_from(block).expect("inside RAM")].store(true, Relaxed);
        }
        Ok(released)
    }

    /// Splits the huge page behind a block of which `start..end` covers a part. True if there was one to split.
    ///
    /// Since Linux 6.12 pages of zeros are not kept when a huge page is split. They are counted as released, lest they hide
    /// as many touches; the next comparison records that their frames are untouched.
    fn split_if_partial(&self, pagemap: &Pagemap, block: u64, start: u64, end: u64) -> io::Result<bool> {
        let (block_start, block_end) = (block * FRAMES_PER_BLOCK, (block + 1) * FRAMES_PER_BLOCK);
        let (from, to) = (start.max(block_start), end.min(block_end));
        let flag = &self.maybe_huge[usize::try_from(block).expect("inside RAM")];
        if to - from == FRAMES_PER_BLOCK || !flag.swap(false, Relaxed) {
            return Ok(false);
        }
        // One page of the part is enough: the kernel splits the whole page to free it lazily.
        let at = usize::try_from(from * FRAME_BYTES).expect("inside RAM");
        // SAFETY: `from` lies inside the reservation.
        let host = unsafe { self.base.add(at) };
        let block_host = self.base.as_ptr() as u64 + block * BLOCK_BYTES;
        let before = pagemap.count_held(block_host, FRAMES_PER_BLOCK)?;
        advise(host, FRAME_BYTES, libc::MADV_FREE)?;
        let zeros = before.saturating_sub(pagemap.count_held(block_host, FRAMES_PER_BLOCK)?);
        self.releases.begun.fetch_add(zeros, Release);
        self.releases.ended.fetch_add(zeros, Release);
        Ok(true)
    }
}

pub(super) fn advise(host: NonNull<u8>, bytes: u64, advice: libc::c_int) -> io::Result<()> {
    let length = usize::try_from(bytes).expect("inside RAM");
    loop {
        // SAFETY: the range is guest RAM, which is only ever read and written through volatile accessors that expect any bytes.
        if unsafe { libc::madvise(host.as_ptr().cast(), length, advice) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if !matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) {
            return Err(error);
        }
    }
}
