//! A backing: it holds the pages of an image.

use super::managed::Managed;
use super::page_set::PageSet;
use accounting::Run;
use protocol::image::Backing;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

/// An image in one trust domain, as the host holds it. Every call may wait for the disk, so it must not be made on the
/// daemon's own thread.
pub trait PoolBacking: Debug + Send + Sync {
    /// Which kind it is, for guests and clients.
    fn kind(&self) -> Backing;

    /// Length of the image, bytes: a multiple of 2 MiB.
    fn bytes(&self) -> u64;

    /// A descriptor of its own for a guest, open for reading alone.
    ///
    /// # Errors
    /// When the system gives none.
    fn open_for_guest(&self) -> io::Result<File>;

    /// A descriptor whose lock says in the store that the image is in use, if the descriptor of the guest has no such
    /// lock. The guest keeps it.
    ///
    /// # Errors
    /// When the system gives none.
    fn mark(&self) -> io::Result<Option<File>> {
        Ok(None)
    }

    /// Pages that are resident now.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn resident(&self) -> io::Result<PageSet>;

    /// Evicts pages that no guest maps. Pages that cannot be evicted now stay: the next [`Self::resident`] has them.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn evict(&self, run: Run) -> io::Result<()>;

    /// The backing as one that the balancer fills itself; `None` for one that the kernel fills.
    fn as_managed(&self) -> Option<&Managed> {
        None
    }

    /// The stamp of the file: another one means that the file was changed.
    ///
    /// # Errors
    /// When the system does not say.
    fn stamp(&self) -> io::Result<Stamp>;
}

/// Attributes that change when a file changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// Device and inode.
    pub inode: (u64, u64),
    /// Time of the last change of content or attributes: seconds and nanoseconds.
    pub changed_at: (i64, i64),
    /// Length, bytes.
    pub bytes: u64,
    /// Names that the file has; none once it was removed.
    pub links: u64,
}

impl Stamp {
    /// The stamp of an open file.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            inode: (meta.dev(), meta.ino()),
            changed_at: (meta.ctime(), meta.ctime_nsec()),
            bytes: meta.len(),
            links: meta.nlink(),
        })
    }
}
