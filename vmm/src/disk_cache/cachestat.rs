//! `cachestat` (Linux 6.5): pages of a file in the page cache, O(cached pages).
//!
//! The kernel (mm/filemap.c) counts every cached page in `nr_cache`, those that are dirty or under writeback too, and counts
//! these once more beside it. Of a block device it is the device's own cache. Who neither owns a file nor may write it is
//! not told (Linux 6.14).

use protocol::bytes::FRAME_BYTES;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Number of the system call, the same on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range` (include/uapi/linux/mman.h). No length means up to the end.
#[repr(C)]
struct CachestatRange {
    off: u64,
    len: u64,
}

/// `struct cachestat`.
#[repr(C)]
#[derive(Default)]
struct Cachestat {
    nr_cache: u64,
    nr_dirty: u64,
    nr_writeback: u64,
    nr_evicted: u64,
    nr_recently_evicted: u64,
}

/// Cached bytes of a part of a file, in whole pages.
pub(super) fn cached_bytes(file: &File, part: &Range<u64>) -> io::Result<u64> {
    let len = part.end.saturating_sub(part.start);
    if len == 0 {
        return Ok(0);
    }
    let range = CachestatRange { off: part.start, len };
    let mut stat = Cachestat::default();
    // SAFETY: pointers to two structs of the kernel's layout, of which it fills the second; a descriptor that is open.
    let result = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0 as libc::c_uint)
    };
    if result == 0 { Ok(stat.nr_cache.saturating_mul(FRAME_BYTES)) } else { Err(io::Error::last_os_error()) }
}
