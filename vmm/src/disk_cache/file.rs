//! A file behind a disk.

use super::{cachestat, mincore};
use protocol::disk::{CachedFile, FileId};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What `mincore` is asked of a file at most: it looks at pages that are not cached too. The rest is told as an error. Bytes.
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
    /// True if `mincore` tells the truth about it.
    tells: bool,
    /// True if an overlay is between it and the file that has the pages: `cachestat` sees the overlay's none.
    overlaid: bool,
    stays: bool,
    moved: Vec<Arc<AtomicU64>>,
    /// What is left to be done about dropping it.
    pub(super) dropping: Option<super::drop::Dropping>,
    /// Where dropping goes on, so that it is not always the same part that is dropped.
    pub(super) hand: u64,
}

impl DiskFile {
    /// The file of a disk of so many bytes that counts in `moved` what it moves.
    ///
    /// It is opened anew instead of duplicated: an error of writing back is told once to each open file, and whoever drops
    /// pages must not be told instead of the guest's next flush.
    ///
    /// # Errors
    /// When the file cannot be opened to read.
    pub fn open(disk: &File, bytes: u64, moved: Arc<AtomicU64>) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", disk.as_raw_fd());
        let file = File::open(&path)?;
        let meta = file.metadata()?;
        let is_device = meta.file_type().is_block_device();
        let id = if is_device {
            FileId { dev: meta.rdev(), ino: 0 }
        } else {
            FileId { dev: meta.dev(), ino: meta.ino() }
        };
        // The node of a block device may be on a tmpfs; its pages are not.
        let kind = if is_device { 0 } else { file_system(&file)? };
        // SAFETY: plain calls; the path is a valid C string.
        let tells = unsafe {
            let path = std::ffi::CString::new(path)?;
            meta.uid() == libc::geteuid()
                || libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK, libc::AT_EACCESS) == 0
        };
        Ok(Self {
            file,
            id,
            bytes,
            tells,
            overlaid: kind == libc::OVERLAYFS_SUPER_MAGIC,
            stays: [libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC, RAMFS_MAGIC].contains(&kind),
            moved: vec![moved],
            dropping: None,
            hand: 0,
        })
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
        self.stays
    }

    /// What the page cache holds of it.
    pub(super) fn look(&self) -> CachedFile {
        let (bytes, error_bytes) = self.cached().unwrap_or_else(|error| {
            tracing::debug!(%error, "The kernel does not tell what is cached of a disk");
            (0, self.bytes)
        });
        CachedFile { file: self.id, bytes, error_bytes, stays: self.stays }
    }

    fn cached(&self) -> io::Result<(u64, u64)> {
        let whole = 0..self.bytes;
        if let Ok(bytes) = self.cached_bytes_by(Method::Cachestat, &whole) {
            return Ok((bytes, 0));
        }
        let looked = 0..self.bytes.min(MINCORE_BYTES_MAX);
        Ok((self.cached_bytes_by(Method::Mincore, &looked)?, self.bytes - looked.end))
    }

    /// Cached bytes of a part, by the best method that this kernel has.
    pub(super) fn cached_bytes(&self, part: &Range<u64>) -> io::Result<u64> {
        self.cached_bytes_by(Method::Cachestat, part).or_else(|_| self.cached_bytes_by(Method::Mincore, part))
    }

    pub(super) fn cached_bytes_by(&self, method: Method, part: &Range<u64>) -> io::Result<u64> {
        match method {
            Method::Cachestat if !self.overlaid => cachestat::cached_bytes(&self.file, part),
            Method::Mincore if self.tells => mincore::cached_bytes(&self.file, part),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// `RAMFS_MAGIC` (include/uapi/linux/magic.h).
const RAMFS_MAGIC: libc::c_long = 0x8584_58f6;

/// Which file system a file is on, by its number (statfs(2)).
fn file_system(file: &File) -> io::Result<libc::c_long> {
    // SAFETY: zeroed is a valid statfs, and the call fills it.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a descriptor that is open and a valid pointer.
    if unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(found.f_type)
}
