//! The page cache of an image's file as backing of the pool: nothing to fill, nothing to keep, and the kernel reclaims what
//! nobody maps. Who uses a page is sampled.
//!
//! `cachestat(2)` (Linux 6.5) counts the pages of a range, which is all there is to know where a whole range is there or
//! none of it. What is mixed is asked of `mincore(2)` page by page, through a mapping that lives for this one question and
//! whose pages are never touched: a mapping that stays would count as a sharer. File systems stacked on others, such as
//! overlayfs, have no pages of their own to count and are asked page by page only.

use super::backing::{PoolBacking, Stamp};
use super::page_set::PageSet;
use accounting::Run;
use protocol::bytes::{BLOCK_BYTES, FRAME_BYTES};
use protocol::image::Backing;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Number of `cachestat(2)`, the same on all architectures.
const SYS_CACHESTAT: libc::c_long = 451;
/// `OVERLAYFS_SUPER_MAGIC` of `linux/magic.h`.
const OVERLAYFS: libc::c_long = 0x794c_7630;
const BLOCK_PAGES: u64 = BLOCK_BYTES / FRAME_BYTES;

/// The page cache of one file.
#[derive(Debug)]
pub struct Pagecache {
    file: File,
    bytes: u64,
    counts: bool,
}

/// `struct cachestat_range` and `struct cachestat` of `linux/mman.h`.
#[repr(C)]
struct Range {
    offset: u64,
    bytes: u64,
}

#[repr(C)]
#[derive(Default)]
struct Counts {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

impl Pagecache {
    /// The page cache behind an open file, whose length does not change any more.
    ///
    /// # Errors
    /// When the system does not tell its length.
    pub fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let mut pagecache = Self { file, bytes, counts: true };
        pagecache.counts = !pagecache.is_stacked() && pagecache.count(0, FRAME_BYTES).is_ok();
        Ok(pagecache)
    }

    /// The same file opened anew: locks and flags of an open file are shared by all who have it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open_unlocked(&self) -> io::Result<File> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(path)
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn is_stacked(&self) -> bool {
        // SAFETY: zeroed is a valid statfs, which the call fills.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: a descriptor that we own and a valid pointer; the result is checked.
        let done = unsafe { libc::fstatfs(self.file.as_raw_fd(), &raw mut stat) } == 0;
        !done || stat.f_type == OVERLAYFS
    }

    /// Pages of a range that are in the page cache.
    fn count(&self, offset: u64, bytes: u64) -> io::Result<u64> {
        let (range, mut counts) = (Range { offset, bytes }, Counts::default());
        let (range, counts_at) = (&raw const range, &raw mut counts);
        // SAFETY: a descriptor that we own, and valid pointers to what the kernel reads and fills.
        let done = unsafe { libc::syscall(SYS_CACHESTAT, self.file.as_raw_fd(), range, counts_at, 0) };
        if done == 0 { Ok(counts.cached) } else { Err(io::Error::last_os_error()) }
    }

    fn pages(&self) -> u64 {
        self.bytes / FRAME_BYTES
    }

    /// Adds what is resident of a run whose pages are not all alike.
    fn look(&self, run: Run, resident: &mut PageSet) -> io::Result<()> {
        let length = usize::try_from(run.count * FRAME_BYTES).map_err(io::Error::other)?;
        let offset = libc::off_t::try_from(run.first * FRAME_BYTES).map_err(io::Error::other)?;
        let mut pages = vec![0u8; usize::try_from(run.count).map_err(io::Error::other)?];
        // SAFETY: a new read-only mapping of a descriptor that we own, at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                self.file.as_raw_fd(),
                offset,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: exactly the mapping made above, and a byte for each of its pages. Nothing in it is accessed.
        let done = unsafe { libc::mincore(at, length, pages.as_mut_ptr()) };
        let error = io::Error::last_os_error();
        // SAFETY: exactly the mapping made above; nobody else knows of it.
        unsafe { libc::munmap(at, length) };
        if done != 0 {
            return Err(error);
        }
        let mut at = run.first;
        for alike in pages.chunk_by(|a, b| a & 1 == b & 1) {
            let count = alike.len() as u64;
            if alike[0] & 1 == 1 {
                resident.insert(Run { first: at, count });
            }
            at += count;
        }
        Ok(())
    }
}

impl PoolBacking for Pagecache {
    fn kind(&self) -> Backing {
        Backing::Pagecache
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn open_for_guest(&self) -> io::Result<File> {
        let file = self.open_unlocked()?;
        // The guest's own mark in the store that the image is in use: it goes with the guest's last descriptor and mapping.
        file.lock_shared()?;
        Ok(file)
    }

    fn resident(&self) -> io::Result<PageSet> {
        let pages = self.pages();
        let mut resident = PageSet::new(pages);
        if !self.counts {
            self.look(Run { first: 0, count: pages }, &mut resident)?;
            return Ok(resident);
        }
        match self.count(0, self.bytes)? {
            0 => return Ok(resident),
            all if all == pages => return Ok(PageSet::all(pages)),
            _ => {}
        }
        // Blocks in a row that are mixed are looked at through one mapping.
        let mut mixed: Option<Run> = None;
        for first in (0..pages).step_by(BLOCK_PAGES as usize) {
            let block = Run { first, count: BLOCK_PAGES.min(pages - first) };
            let cached = self.count(first * FRAME_BYTES, block.count * FRAME_BYTES)?;
            if cached > 0 && cached < block.count {
                mixed = Some(match mixed {
                    Some(run) => Run { count: run.count + block.count, ..run },
                    None => block,
                });
                continue;
            }
            if let Some(run) = mixed.take() {
                self.look(run, &mut resident)?;
            }
            if cached > 0 {
                resident.insert(block);
            }
        }
        mixed.map_or(Ok(()), |run| self.look(run, &mut resident))?;
        Ok(resident)
    }

    fn evict(&self, run: Run) -> io::Result<()> {
        let bytes = |pages: u64| libc::off_t::try_from(pages * FRAME_BYTES).map_err(io::Error::other);
        let (offset, length) = (bytes(run.first)?, bytes(run.count)?);
        // SAFETY: an advice about a descriptor that we own. Mapped and dirty pages stay.
        match unsafe { libc::posix_fadvise(self.file.as_raw_fd(), offset, length, libc::POSIX_FADV_DONTNEED) }
        {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn stamp(&self) -> io::Result<Stamp> {
        Stamp::of(&self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    const PAGES: u64 = 4 * BLOCK_PAGES;

    /// A file of 8 MiB of which nothing is in the page cache. `None` where the file system has no disk to read it from.
    fn cold() -> Option<Pagecache> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; (PAGES * FRAME_BYTES) as usize]).unwrap();
        file.sync_all().unwrap();
        let pagecache = Pagecache::new(file).unwrap();
        pagecache.evict(Run { first: 0, count: PAGES }).unwrap();
        let cold = pagecache.resident().unwrap().is_empty();
        if !cold {
            skip::skip!(TemporaryOnDisk, "temporary files are in memory and cannot leave it");
        }
        cold.then_some(pagecache)
    }

    fn read(pagecache: &Pagecache, run: Run) {
        let mut bytes = vec![0; (run.count * FRAME_BYTES) as usize];
        pagecache.file.read_exact_at(&mut bytes, run.first * FRAME_BYTES).unwrap();
    }

    #[test]
    fn what_was_read_is_resident_until_it_is_evicted_whichever_way_it_is_asked() {
        let Some(mut pagecache) = cold() else { return };
        for run in
            [Run { first: 600, count: 1 }, Run { first: 1024, count: 512 }, Run { first: 0, count: PAGES }]
        {
            read(&pagecache, run);
            let counted = pagecache.resident().unwrap();
            let wanted = {
                let mut set = PageSet::new(PAGES);
                set.insert(run);
                set
            };
            assert!(wanted.minus(&counted).is_empty(), "{run:?} was read");
            let counts = std::mem::replace(&mut pagecache.counts, false);
            assert_eq!(pagecache.resident().unwrap(), counted);
            pagecache.counts = counts;
        }
        pagecache.evict(Run { first: 0, count: PAGES }).unwrap();
        assert!(pagecache.resident().unwrap().is_empty());
    }

    #[test]
    fn what_is_mapped_stays() {
        let Some(pagecache) = cold() else { return };
        let guest = pagecache.open_for_guest().unwrap();
        // SAFETY: a new read-only mapping of an open file.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, guest.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED);
        // SAFETY: the first byte of the mapping above.
        assert_eq!(unsafe { at.cast::<u8>().read_volatile() }, 7);
        pagecache.evict(Run { first: 0, count: PAGES }).unwrap();
        let left = pagecache.resident().unwrap();
        assert_eq!(left.runs().next().map(|run| run.first), Some(0));
        // SAFETY: exactly the mapping above.
        unsafe { libc::munmap(at, 4096) };
    }

    #[test]
    fn a_guests_descriptor_cannot_write() {
        let Some(pagecache) = cold() else { return };
        let guest = pagecache.open_for_guest().unwrap();
        assert!(guest.write_at(b"x", 0).is_err() && guest.set_len(0).is_err());
        assert_eq!(pagecache.stamp().unwrap(), Stamp::of(&guest).unwrap());
    }
}
