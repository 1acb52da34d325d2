//! A file behind a disk.

use host::page_cache::{FileView, cached_pages, resident_runs};
use host::process::reopen;
use protocol::bytes::FRAME_BYTES;
use protocol::disk::{CachedFile, FileId};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Most bytes of a file that `mincore` is asked for: it visits pages that are not cached too. The rest is an error
/// bound.
const MINCORE_BYTES_MAX: u64 = 16 << 30;

/// How the kernel is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Cachestat,
    Mincore,
}

/// A file behind a disk, opened once more.
#[derive(Debug)]
pub struct DiskFile {
    pub(super) file: File,
    id: FileId,
    pub(super) bytes: u64,
    view: FileView,
    moved: Vec<Arc<AtomicU64>>,
    /// The dropping that is not done yet.
    pub(super) dropping: Option<super::drop::Dropping>,
    /// Where dropping goes on, so that it does not always drop the same part.
    pub(super) hand: u64,
}

impl DiskFile {
    /// The file of a disk of so many bytes that counts in `moved` what it moves.
    ///
    /// It is opened again instead of duplicated: the kernel reports an error of writing back once to each open file,
    /// and the guest's next flush has to get it even if pages were dropped before.
    ///
    /// # Errors
    /// When the file cannot be opened to read.
    pub fn open(disk: &File, bytes: u64, moved: Arc<AtomicU64>) -> io::Result<Self> {
        let file = reopen(disk)?;
        let meta = file.metadata()?;
        let id = if meta.file_type().is_block_device() {
            FileId { dev: meta.rdev(), ino: 0 }
        } else {
            FileId { dev: meta.dev(), ino: meta.ino() }
        };
        let view = FileView::of(&file)?;
        Ok(Self { file, id, bytes, view, moved: vec![moved], dropping: None, hand: 0 })
    }

    /// The file.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Another disk has the same file.
    pub(super) fn join(&mut self, other: Self) {
        self.bytes = self.bytes.max(other.bytes);
        self.moved.extend(other.moved);
    }

    pub(super) fn moved_bytes(&self) -> u64 {
        self.moved.iter().fold(0, |sum, moved| moved.load(Relaxed).wrapping_add(sum))
    }

    /// True if its pages cannot be dropped.
    pub(super) fn stays(&self) -> bool {
        self.view.in_memory
    }

    /// What the page cache holds of it.
    pub(super) fn read(&self) -> CachedFile {
        let (bytes, error_bytes) = self.cached().unwrap_or_else(|error| {
            tracing::debug!(%error, "Cannot read which pages of a disk are cached");
            (0, self.bytes)
        });
        CachedFile { file: self.id, bytes, error_bytes, stays: self.stays() }
    }

    fn cached(&self) -> io::Result<(u64, u64)> {
        let whole = 0..self.bytes;
        if let Ok(bytes) = self.cached_bytes_by(Method::Cachestat, &whole) {
            return Ok((bytes, 0));
        }
        let asked = 0..self.bytes.min(MINCORE_BYTES_MAX);
        Ok((self.cached_bytes_by(Method::Mincore, &asked)?, self.bytes - asked.end))
    }

    /// Cached bytes of a part, by the best method that this kernel has.
    pub(super) fn cached_bytes(&self, part: &Range<u64>) -> io::Result<u64> {
        self.cached_bytes_by(Method::Cachestat, part).or_else(|_| self.cached_bytes_by(Method::Mincore, part))
    }

    pub(super) fn cached_bytes_by(&self, method: Method, part: &Range<u64>) -> io::Result<u64> {
        let mut pages = 0;
        match method {
            Method::Cachestat if !self.view.is_stacked => pages = cached_pages(&self.file, part)?,
            Method::Mincore if self.view.is_shown => {
                let asked = part.start / FRAME_BYTES..part.end.div_ceil(FRAME_BYTES);
                resident_runs(&self.file, asked, |run| pages += run.end - run.start)?;
            }
            _ => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(pages.saturating_mul(FRAME_BYTES))
    }
}
