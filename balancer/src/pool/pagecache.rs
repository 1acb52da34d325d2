//! The page cache of an image's file as backing of the pool: it needs neither filling nor keeping, and the kernel
//! reclaims pages that no guest maps. Which guest uses a page is sampled.
//!
//! Counting ([`cached_pages`]) is enough where a whole range is in the page cache, or nothing of it. Of a mixed range
//! [`resident_runs`] is asked page by page.

use super::backing::{PoolBacking, Stamp};
use super::page_set::PageSet;
use accounting::Run;
use host::page_cache::{FileView, cached_pages, drop_pages, resident_runs};
use host::process::reopen;
use protocol::bytes::{BLOCK_BYTES, FRAME_BYTES};
use protocol::image::Backing;
use std::fs::File;
use std::io;
use std::ops::Range;

const BLOCK_PAGES: u64 = BLOCK_BYTES / FRAME_BYTES;

/// The page cache of one file.
#[derive(Debug)]
pub struct Pagecache {
    file: File,
    bytes: u64,
    /// True if the kernel can count its pages.
    counts: bool,
}

impl Pagecache {
    /// The page cache behind an open file, whose length does not change any more.
    ///
    /// # Errors
    /// When the system does not tell its length.
    pub fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let is_stacked = FileView::of(&file).is_ok_and(|view| view.is_stacked);
        let counts = !is_stacked && cached_pages(&file, &(0..FRAME_BYTES)).is_ok();
        Ok(Self { file, bytes, counts })
    }

    /// The same file opened again: all users of an open file share its locks and flags.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open_unlocked(&self) -> io::Result<File> {
        reopen(&self.file)
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn pages(&self) -> u64 {
        self.bytes / FRAME_BYTES
    }

    /// Adds the resident pages of a run whose pages are not all alike.
    fn add_resident(&self, run: Run, resident: &mut PageSet) -> io::Result<()> {
        resident_runs(&self.file, run.first..run.first + run.count, |pages| {
            resident.insert(Run { first: pages.start, count: pages.end - pages.start });
        })
    }
}

/// The bytes of a run of pages.
fn bytes_of(run: Run) -> Range<u64> {
    run.first * FRAME_BYTES..(run.first + run.count) * FRAME_BYTES
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
        // The guest's own mark in the store that the image is in use: it ends with the guest's last descriptor and
        // mapping.
        file.lock_shared()?;
        Ok(file)
    }

    fn resident(&self) -> io::Result<PageSet> {
        let pages = self.pages();
        let mut resident = PageSet::new(pages);
        if !self.counts {
            self.add_resident(Run { first: 0, count: pages }, &mut resident)?;
            return Ok(resident);
        }
        match cached_pages(&self.file, &(0..self.bytes))? {
            0 => return Ok(resident),
            all if all == pages => return Ok(PageSet::all(pages)),
            _ => {}
        }
        // Blocks in a row that are mixed are one question.
        let mut mixed: Option<Run> = None;
        for first in (0..pages).step_by(BLOCK_PAGES as usize) {
            let block = Run { first, count: BLOCK_PAGES.min(pages - first) };
            let cached = cached_pages(&self.file, &bytes_of(block))?;
            if cached > 0 && cached < block.count {
                mixed = Some(match mixed {
                    Some(run) => Run { count: run.count + block.count, ..run },
                    None => block,
                });
                continue;
            }
            if let Some(run) = mixed.take() {
                self.add_resident(run, &mut resident)?;
            }
            if cached > 0 {
                resident.insert(block);
            }
        }
        mixed.map_or(Ok(()), |run| self.add_resident(run, &mut resident))?;
        Ok(resident)
    }

    /// Mapped and dirty pages stay.
    fn evict(&self, run: Run) -> io::Result<()> {
        drop_pages(&self.file, &bytes_of(run))
    }

    fn stamp(&self) -> io::Result<Stamp> {
        Stamp::of(&self.file)
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
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
    fn a_page_that_was_read_is_resident_until_it_is_evicted_by_both_ways_to_ask() {
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
    fn a_mapped_page_is_not_evicted() {
        let Some(pagecache) = cold() else { return };
        let guest = pagecache.open_for_guest().unwrap();
        // SAFETY: a new read-only mapping of an open file.
        let at = unsafe { mmap(std::ptr::null_mut(), 4096, ProtFlags::READ, MapFlags::SHARED, &guest, 0) };
        let at = at.unwrap();
        // SAFETY: the first byte of the mapping above.
        assert_eq!(unsafe { at.cast::<u8>().read_volatile() }, 7);
        pagecache.evict(Run { first: 0, count: PAGES }).unwrap();
        let left = pagecache.resident().unwrap();
        assert_eq!(left.runs().next().map(|run| run.first), Some(0));
        // SAFETY: exactly the mapping above.
        unsafe { munmap(at, 4096).unwrap() };
    }

    #[test]
    fn a_guests_descriptor_cannot_write() {
        let Some(pagecache) = cold() else { return };
        let guest = pagecache.open_for_guest().unwrap();
        assert!(guest.write_at(b"x", 0).is_err() && guest.set_len(0).is_err());
        assert_eq!(pagecache.stamp().unwrap(), Stamp::of(&guest).unwrap());
    }
}
