//! Dropping a file's pages: written back where they are dirty, then given to the kernel (`POSIX_FADV_DONTNEED`,
//! posix_fadvise(2), which leaves dirty pages and those that somebody has mapped).
//!
//! ```text
//!   0 .......... hand |=====|-----------------| end, and on from 0, once around
//!                      part: 2 to 8 MiB, at 2 MiB: the kernel drops a large folio whole or not at all
//! ```

use super::file::DiskFile;
use protocol::bytes::BLOCK_BYTES;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Most that is written back and dropped before somebody else has a turn.
const STEP_BYTES: u64 = 64 << 20;
/// Most at a time.
const PART_BYTES_MAX: u64 = 8 << 20;
/// Parts that are looked at in a step.
const STEP_PARTS: u32 = 4096;

/// What is left to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropping {
    /// To be dropped; `None` until it was counted.
    excess_bytes: Option<u64>,
    keep_bytes: u64,
    /// The part of the file that was not gone over yet.
    left_bytes: u64,
}

impl DiskFile {
    /// Keeps no more than this from now on, once.
    pub(super) fn keep(&mut self, keep_bytes: u64) {
        if !self.stays() {
            self.dropping = Some(Dropping { excess_bytes: None, keep_bytes, left_bytes: self.bytes });
        }
    }

    pub(super) fn is_dropping(&self) -> bool {
        self.dropping.is_some()
    }

    /// A bounded part of it. A file that cannot be dropped is left as it is.
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

    /// Drops what is cached of a part, and says how much that was.
    fn drop_part(&self, part: &Range<u64>) -> io::Result<u64> {
        let before = self.cached_bytes(part)?;
        if before == 0 {
            return Ok(0);
        }
        let (fd, start) = (self.file.as_raw_fd(), offset(part.start)?);
        let len = offset(part.end - part.start)?;
        let write_back = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        // SAFETY: a descriptor that is open, and no pointers.
        if unsafe { libc::sync_file_range(fd, start, len, write_back) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above. It returns the error instead of setting it.
        match unsafe { libc::posix_fadvise(fd, start, len, libc::POSIX_FADV_DONTNEED) } {
            0 => Ok(before.saturating_sub(self.cached_bytes(part)?)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn offset(bytes: u64) -> io::Result<libc::off64_t> {
    libc::off64_t::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}
