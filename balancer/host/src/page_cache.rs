//! The page cache of a file: which of its pages are there, and dropping them.
//!
//! | question | answer | cost |
//! |---|---|---|
//! | [`cached_pages`] | how many pages of a range are there, by `cachestat` (Linux 6.5) | O(cached pages) |
//! | [`resident_runs`] | which pages of a range are there, by `mincore` | O(pages of the range) |
//!
//! Both have blind spots, and [`FileView`] knows them. A file system that is stacked on another one, such as overlayfs,
//! has no pages of its own to count. And `mincore` says "all of them" to a process that neither owns a file nor may
//! write to it (`can_do_mincore` in mm/mincore.c); `cachestat` refuses such a process (Linux 6.14).
#![allow(unsafe_code)]

use protocol::bytes::FRAME_BYTES;
use rustix::fs::{Access, Advice, AtFlags};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::ptr;

/// Number of `cachestat`, the same on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;
/// Pages that `mincore` is asked for at a time: 64 MiB of a file are mapped meanwhile.
const WINDOW_PAGES: u64 = (64 << 20) / FRAME_BYTES;

/// `struct cachestat_range` (include/uapi/linux/mman.h). A length of 0 means up to the end.
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

/// Pages of a range of bytes that the page cache holds. The kernel (mm/filemap.c) counts every cached page in
/// `nr_cache`, and the dirty ones and those under writeback once more in figures of their own, which are not added
/// here. Of a block device it counts the device's own cache.
///
/// # Errors
/// When the kernel does not have the call, or refuses.
pub fn cached_pages(file: &File, range: &Range<u64>) -> io::Result<u64> {
    let len = range.end.saturating_sub(range.start);
    if len == 0 {
        return Ok(0);
    }
    let asked = CachestatRange { off: range.start, len };
    let mut found = Cachestat::default();
    // SAFETY: a descriptor that is open, and pointers to two structs of the kernel's layout, of which it fills the
    // second.
    let result = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const asked, &raw mut found, 0 as libc::c_uint)
    };
    if result == 0 { Ok(found.nr_cache) } else { Err(io::Error::last_os_error()) }
}

/// Visits the runs of pages that the page cache holds, of a range of page numbers of a file, ascending. Two runs may
/// touch.
///
/// The file is mapped for the length of one call and no page of it is touched: so there are no page tables, and this
/// process does not count as a user of its pages.
///
/// # Errors
/// When the file cannot be mapped.
pub fn resident_runs(file: &File, pages: Range<u64>, mut visit: impl FnMut(Range<u64>)) -> io::Result<()> {
    let mut at = pages.start;
    while at < pages.end {
        let end = pages.end.min(at + WINDOW_PAGES);
        let mut first = at;
        for alike in residency(file, at..end)?.chunk_by(|a, b| a & 1 == b & 1) {
            let next = first + alike.len() as u64;
            if alike[0] & 1 == 1 {
                visit(first..next);
            }
            first = next;
        }
        at = end;
    }
    Ok(())
}

/// A byte for each page, whose lowest bit is set if the page is there.
fn residency(file: &File, pages: Range<u64>) -> io::Result<Vec<u8>> {
    let count = usize::try_from(pages.end - pages.start).map_err(io::Error::other)?;
    let bytes = count * FRAME_BYTES as usize;
    let mut there = vec![0u8; count];
    let (protection, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let map = unsafe {
        rustix::mm::mmap(ptr::null_mut(), bytes, protection, flags, file, pages.start * FRAME_BYTES)?
    };
    // SAFETY: exactly the mapping made above, and a byte for each of its pages. Nothing in it is accessed.
    let result = unsafe { libc::mincore(map, bytes, there.as_mut_ptr()) };
    let answer = if result == 0 { Ok(there) } else { Err(io::Error::last_os_error()) };
    // SAFETY: exactly the mapping made above, to which nothing points.
    unsafe { rustix::mm::munmap(map, bytes)? };
    answer
}

/// Drops pages of a range of bytes (`POSIX_FADV_DONTNEED`, posix_fadvise(2)). Dirty pages and those that a process has
/// mapped stay.
///
/// # Errors
/// When the kernel refuses.
pub fn drop_pages(file: impl AsFd, range: &Range<u64>) -> io::Result<()> {
    let Some(len) = NonZeroU64::new(range.end.saturating_sub(range.start)) else { return Ok(()) };
    Ok(rustix::fs::fadvise(file, range.start, Some(len), Advice::DontNeed)?)
}

/// Writes the dirty pages of a range of bytes back, and waits for that.
///
/// # Errors
/// When the file system cannot write them.
pub fn write_back(file: impl AsFd, range: &Range<u64>) -> io::Result<()> {
    let offset =
        |bytes| libc::off64_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (start, len) = (offset(range.start)?, offset(range.end.saturating_sub(range.start))?);
    let flags =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: a descriptor that is open, and no pointers.
    match unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), start, len, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the kernel can say of the pages of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileView {
    /// Its pages are memory of their own (tmpfs, ramfs, hugetlbfs) and cannot be dropped.
    pub in_memory: bool,
    /// Another file has its pages, so [`cached_pages`] finds none.
    pub is_stacked: bool,
    /// True if [`resident_runs`] says the truth about it to this process.
    pub is_shown: bool,
}

/// `RAMFS_MAGIC` and its like (include/uapi/linux/magic.h).
const IN_MEMORY: [u32; 3] = [0x0102_1994, 0x9584_58f6, 0x8584_58f6];
const OVERLAYFS: u32 = 0x794c_7630;

impl FileView {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When it does not say on which file system the file is.
    pub fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        // The node of a block device may be on a tmpfs; its pages are not.
        let is_device = meta.file_type().is_block_device();
        // The magic numbers have 32 bits, in a field that is as wide as a pointer and may be extended by its sign.
        let kind =
            if is_device { 0 } else { (rustix::fs::fstatfs(file)?.f_type as u64 & 0xffff_ffff) as u32 };
        Ok(Self {
            in_memory: IN_MEMORY.contains(&kind),
            is_stacked: kind == OVERLAYFS,
            is_shown: meta.uid() == crate::peer::own_uid() || may_write(file),
        })
    }
}

fn may_write(file: &File) -> bool {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::accessat(rustix::fs::CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A file of so many pages next to the test program: where temporary files are in memory, that one is not.
    fn file(pages: u64) -> File {
        let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let mut file = tempfile::tempfile_in(folder).unwrap();
        file.write_all(&vec![7; (pages * FRAME_BYTES) as usize]).unwrap();
        file
    }

    fn runs(file: &File, pages: Range<u64>) -> Vec<Range<u64>> {
        let mut runs = vec![];
        resident_runs(file, pages, |run| runs.push(run)).unwrap();
        runs
    }

    #[test]
    fn what_was_written_is_counted_and_found_until_it_is_dropped() {
        let file = file(64);
        let view = FileView::of(&file).unwrap();
        assert!(view.is_shown);
        assert_eq!(runs(&file, 3..9), vec![3..9; 1]);
        let whole = 0..64 * FRAME_BYTES;
        let counted = cached_pages(&file, &whole);
        if !view.is_stacked {
            assert!(counted.is_ok_and(|pages| pages == 64));
        }
        write_back(&file, &whole).unwrap();
        drop_pages(&file, &whole).unwrap();
        assert_eq!(runs(&file, 0..64).is_empty(), !view.in_memory);
    }

    #[test]
    fn a_memfd_is_memory_and_a_device_node_is_judged_by_its_device() {
        let memory = rustix::fs::memfd_create(c"test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert!(FileView::of(&memory.into()).unwrap().in_memory);
    }

    #[test]
    fn an_empty_range_is_no_question() {
        let file = file(1);
        assert_eq!(cached_pages(&file, &(0..0)).unwrap(), 0);
        assert!(runs(&file, 1..1).is_empty());
        drop_pages(&file, &(4096..4096)).unwrap();
    }
}
