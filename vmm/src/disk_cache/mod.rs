//! The host's page cache of this guest's disks: how much there is, and dropping it.
//!
//! The host pays for it and no frame table shows it, so it is measured and told to the balancer, which charges it and asks
//! for it back when a limit needs the room. No file is read or written here, and the kernel goes on deciding what is worth
//! keeping: the cache is one for all guests, and who shares a file shares its pages.
//!
//! ```text
//!   the disks moved bytes          -> a look, at most one a second, if the reconciler's budget is open
//!   nothing moved                  -> a look every 30 s: the kernel drops pages by itself
//!   "keep no more than this of it" -> write back and drop, some MiB at a time; then a look
//! ```

mod cachestat;
mod drop;
mod file;
mod mincore;

pub use file::DiskFile;

use protocol::disk::{CachedFile, DISK_FILES_MAX, KeepCached};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Time between two looks while nothing moves.
const LOOK_EVERY: Duration = Duration::from_secs(30);

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
    /// Bytes that the disks had moved before the last look, and when that was.
    looked: Option<(u64, Instant)>,
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
        Self { files: unique, looked: None, dropping: false }
    }

    /// True if it is time for a look.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let is_old = |(moved, at): (u64, Instant)| {
            moved != self.moved_bytes() || now.saturating_duration_since(at) >= LOOK_EVERY
        };
        !self.files.is_empty() && self.looked.is_none_or(is_old)
    }

    /// Looks at all files. O(cached pages).
    pub fn look(&mut self) -> Reading {
        // What moves meanwhile is looked at again.
        let (moved, at) = (self.moved_bytes(), Instant::now());
        let files = self.files.iter().map(DiskFile::look).collect();
        self.looked = Some((moved, at));
        Reading { files, at }
    }

    /// Keeps no more than this of these files from now on, once. Files that are not this guest's are none of its business.
    pub fn keep(&mut self, orders: &[KeepCached]) {
        for order in orders {
            if let Some(file) = self.files.iter_mut().find(|file| file.id() == order.file) {
                file.keep(order.keep_bytes);
                self.dropping = true;
            }
        }
    }

    /// True while there is more to drop.
    #[must_use]
    pub fn is_dropping(&self) -> bool {
        self.dropping
    }

    /// Drops a bounded part of what is to go, and waits for the writing of what is dirty in it.
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
