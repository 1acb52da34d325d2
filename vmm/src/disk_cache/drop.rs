//! Dropping a file's pages: they are written back where they are dirty, then dropped. Mapped pages stay.
//!
//! ```text
//!   0 .......... hand |=====|-----------------| end, and on from 0, once around
//!                      part: 2 to 8 MiB, at 2 MiB: the kernel drops a large folio whole or not at all
//! ```

use super::file::DiskFile;
use host::page_cache::{drop_pages, write_back};
use protocol::bytes::BLOCK_BYTES;
use std::io;
use std::ops::Range;

/// Most bytes that are written back and dropped before other work of the thread comes.
const STEP_BYTES: u64 = 64 << 20;
/// Most bytes at a time.
const PART_BYTES_MAX: u64 = 8 << 20;
/// Parts that are read in a step.
const STEP_PARTS: u32 = 4096;

/// The work that is left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropping {
    /// To be dropped, bytes; `None` until it was counted.
    excess_bytes: Option<u64>,
    keep_bytes: u64,
    /// The part of the file that was not visited yet.
    left_bytes: u64,
}

impl DiskFile {
    /// Keeps no more than this, once.
    pub(super) fn keep(&mut self, keep_bytes: u64) {
        if !self.stays() {
            self.dropping = Some(Dropping { excess_bytes: None, keep_bytes, left_bytes: self.bytes });
        }
    }

    pub(super) fn is_dropping(&self) -> bool {
        self.dropping.is_some()
    }

    /// Does a bounded part of it. A file whose pages cannot be dropped is left as it is.
    pub(super) fn drop_some(&mut self) {
        let Some(dropping) = self.dropping.take() else { return };
        match self.drop_step(dropping) {
            Ok(rest) => self.dropping = rest,
            Err(error) => tracing::warn!(%error, "Cannot drop the page cache of a disk"),
        }
    }

    fn drop_step(&mut self, mut todo: Dropping) -> io::Result<Option<Dropping>> {
        let mut excess = match todo.excess_bytes {
            Some(excess) => excess,
            None => self.cached_bytes(&(0..self.bytes))?.saturating_sub(todo.keep_bytes),
        };
        let mut step_left = STEP_BYTES;
        for _ in 0..STEP_PARTS {
            if excess == 0 || todo.left_bytes == 0 {
                return Ok(None);
            }
            if step_left == 0 {
                break;
            }
            let start = if self.hand < self.bytes { self.hand } else { 0 };
            let wanted = excess.next_multiple_of(BLOCK_BYTES).min(PART_BYTES_MAX);
            let part = start..start.saturating_add(wanted).min(self.bytes);
            let dropped = self.drop_part(&part)?;
            let len = part.end - part.start;
            (excess, step_left) = (excess.saturating_sub(dropped), step_left.saturating_sub(dropped));
            todo.left_bytes = todo.left_bytes.saturating_sub(len);
            self.hand = part.end;
        }
        todo.excess_bytes = Some(excess);
        Ok(Some(todo))
    }

    /// Drops the cached pages of a part, and returns how many bytes they were.
    fn drop_part(&self, part: &Range<u64>) -> io::Result<u64> {
        let before = self.cached_bytes(part)?;
        if before == 0 {
            return Ok(0);
        }
        write_back(&self.file, part)?;
        drop_pages(&self.file, part)?;
        Ok(before.saturating_sub(self.cached_bytes(part)?))
    }
}
