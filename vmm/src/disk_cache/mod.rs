//! The host's page cache of this guest's disks: how much there is, and dropping it.
//!
//! It is memory of the host that no frame table shows, so it is measured and reported to the balancer, which charges it
//! and has it dropped when a limit needs the room. No file is read or written here, and the kernel goes on deciding
//! which pages are worth keeping: all guests have one cache, and guests that share a file share its pages.
//!
//! ```text
//!   the disks moved bytes          -> a reading, at most one a second, if the reconciler may use CPU time
//!   nothing moved                  -> a reading every 30 s: the kernel drops pages by itself
//!   "keep no more than this of it" -> write back and drop, some MiB at a time; then a reading
//! ```

mod drop;
mod file;

pub use file::DiskFile;

use protocol::disk::{CachedFile, DISK_FILES_MAX, KeepCached};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Time between two readings while nothing moves.
const READ_EVERY: Duration = Duration::from_secs(30);

/// What the page cache held at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Each file once.
    pub files: Vec<CachedFile>,
    /// When.
    pub at: Instant,
}

/// The files behind a guest's disks.
#[derive(Debug, Default)]
pub struct DiskCache {
    files: Vec<DiskFile>,
    /// Bytes that the disks had moved before the last reading, and when that was.
    read: Option<(u64, Instant)>,
    /// True while more is to be dropped.
    dropping: bool,
}

impl DiskCache {
    /// The cache of these files; one that is behind several disks counts once.
    #[must_use]
    pub fn new(files: Vec<DiskFile>) -> Self {
        let mut unique: Vec<DiskFile> = Vec::new();
        let mut ids = BTreeSet::new();
        for file in files {
            if ids.insert(file.id()) {
                unique.push(file);
            } else if let Some(same) = unique.iter_mut().find(|same| same.id() == file.id()) {
                same.join(file);
            }
        }
        unique.truncate(DISK_FILES_MAX);
        Self { files: unique, read: None, dropping: false }
    }

    /// True if it is time for a reading.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let is_old = |(moved, at): (u64, Instant)| {
            moved != self.moved_bytes() || now.saturating_duration_since(at) >= READ_EVERY
        };
        !self.files.is_empty() && self.read.is_none_or(is_old)
    }

    /// Reads what is cached of all files. O(cached pages).
    pub fn read(&mut self) -> Reading {
        // Bytes that move meanwhile make the next reading due.
        let (moved, at) = (self.moved_bytes(), Instant::now());
        let files = self.files.iter().map(DiskFile::read).collect();
        self.read = Some((moved, at));
        Reading { files, at }
    }

    /// Keeps no more than this of these files, once. Files that are not this guest's are ignored.
    pub fn keep(&mut self, asked: &[KeepCached]) {
        for asked in asked {
            if let Some(file) = self.files.iter_mut().find(|file| file.id() == asked.file) {
                file.keep(asked.keep_bytes);
                self.dropping = true;
            }
        }
    }

    /// True while there is more to drop.
    #[must_use]
    pub fn is_dropping(&self) -> bool {
        self.dropping
    }

    /// Drops a bounded part of the excess, and waits until its dirty pages are written.
    pub fn drop_some(&mut self) {
        let next = self.files.iter_mut().find(|file| file.is_dropping());
        self.dropping = next.is_some_and(|file| {
            file.drop_some();
            true
        }) && self.files.iter().any(DiskFile::is_dropping);
    }

    fn moved_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| file.moved_bytes().wrapping_add(sum))
    }
}

#[cfg(test)]
#[path = "disk_cache_test.rs"]
mod tests;
