//! The host's page cache of guests' disks: what a `vmm` reports, and how much of it may stay.
//!
//! Guests may have the same file, so a file has a name that is the same in every process of the host.

use serde::{Deserialize, Serialize};

/// Files behind the disks of one guest at most; a `vmm` has fewer interrupt lines.
pub const DISK_FILES_MAX: usize = 32;

/// A file, as every process of a host names it. A block device is its device number and inode 0: the page cache belongs
/// to the device, whatever its nodes are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileId {
    /// Device number.
    pub dev: u64,
    /// Inode on it.
    pub ino: u64,
}

/// What the host's page cache holds of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CachedFile {
    /// The file.
    pub file: FileId,
    /// Bytes in whole pages, dirty ones and those under writeback among them.
    pub bytes: u64,
    /// By how much that may be too small: what the kernel would not tell. Bytes.
    pub error_bytes: u64,
    /// True if its pages cannot be dropped: they are all that there is of it, on a tmpfs.
    pub stays: bool,
}

/// How much of a file may stay in the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepCached {
    /// The file.
    pub file: FileId,
    /// Bytes.
    pub keep_bytes: u64,
}
