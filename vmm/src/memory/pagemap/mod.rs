//! Which pages of guest RAM the kernel holds.
//!
//! Two methods, chosen when the pagemap is opened: `PAGEMAP_SCAN` (Linux 6.7, [`scan`]) answers in runs and steps over
//! huge pages as a whole; before that `/proc/self/pagemap` is read, eight bytes per page ([`read`]). Neither needs a
//! privilege.
//!
//! *Held* means that the page is charged: it has memory of its own, or was swapped out by the host. The zero page that
//! a guest gets when it reads a page that it never wrote, 4 KiB or huge, is not held. Both methods agree on that.
//!
//! Write-protect tracking (`PAGE_IS_WRITTEN`, `WP_ASYNC`) would report the pages that were written to since the last
//! scan. It is not used: the question is which pages were *touched*, a scan that skips private blocks is cheaper, and
//! every first write would fault twice.

mod read;
mod scan;

use host::proc::Folder;
use protocol::bytes::{BLOCK_BYTES, FRAME_BYTES};
use std::fs::File;
use std::io;
use std::ops::Range;

/// How the kernel is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The `PAGEMAP_SCAN` ioctl.
    Scan,
    /// Reading `/proc/self/pagemap`.
    Read,
}

/// The kernel's view of the pages of a process.
#[derive(Debug)]
pub struct Pagemap {
    file: File,
    method: Method,
    /// This kernel counts the huge zero page as memory, as the first ones with the ioctl do: each huge page is checked.
    doubts_huge: bool,
}

impl Pagemap {
    /// Opens it, with the best method that this kernel has.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn open() -> io::Result<Self> {
        let file = Folder::own().pagemap()?;
        let method = if scan::is_there(&file) { Method::Scan } else { Method::Read };
        let doubts_huge = method == Method::Scan && !scan::knows_huge_zero_page(&file)?;
        Ok(Self { file, method, doubts_huge })
    }

    /// Opens that of another process, with the best method that this kernel has.
    ///
    /// # Errors
    /// When the process is gone, or this one may not look into it (ptrace(2), `PTRACE_MODE_READ`).
    pub fn of_process(pid: i32) -> io::Result<Self> {
        // The kernel's abilities are tried with memory of this process.
        let Self { method, doubts_huge, .. } = Self::open()?;
        Ok(Self { file: Folder::of(pid).pagemap()?, method, doubts_huge })
    }

    /// Opens it with this method, for comparisons.
    ///
    /// # Errors
    /// When the kernel does not have it.
    pub fn with_method(method: Method) -> io::Result<Self> {
        let map = Self::open()?;
        if method == Method::Scan && map.method != Method::Scan {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self { method, ..map })
    }

    /// The same, but it checks each huge page.
    #[cfg(test)]
    pub(super) fn doubting(self) -> Self {
        Self { doubts_huge: true, ..self }
    }

    /// How the kernel is asked.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Visits the runs of pages that the kernel holds, of `pages` from `address` on: ranges of page numbers counted
    /// from `address`, ascending. Two runs may touch.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn held_runs(&self, address: u64, pages: u64, mut visit: impl FnMut(Range<u64>)) -> io::Result<()> {
        match self.method {
            Method::Read => read::runs(&self.file, address, pages, read::holds, visit),
            Method::Scan => {
                let visit = &mut visit;
                let end = address + pages * FRAME_BYTES;
                scan::regions(&self.file, address, end, scan::Wanted::Held, |start, end, huge| {
                    let run = (start - address) / FRAME_BYTES..(end - address) / FRAME_BYTES;
                    if huge && self.doubts_huge { self.visit_huge(address, run, visit) } else { visit(run) }
                })
            }
        }
    }

    /// Visits the runs of pages of a file that are mapped, as [`Self::held_runs`] visits what is held. The kernel maps
    /// some that were never touched next to one that was, if they are in its page cache.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn file_runs(&self, address: u64, pages: u64, mut visit: impl FnMut(Range<u64>)) -> io::Result<()> {
        match self.method {
            Method::Read => read::runs(&self.file, address, pages, read::is_file, visit),
            Method::Scan => {
                let end = address + pages * FRAME_BYTES;
                scan::regions(&self.file, address, end, scan::Wanted::File, |start, end, _| {
                    visit((start - address) / FRAME_BYTES..(end - address) / FRAME_BYTES);
                })
            }
        }
    }

    /// Pages from `address` on that the kernel holds.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn count_held(&self, address: u64, pages: u64) -> io::Result<u64> {
        let mut held = 0;
        self.held_runs(address, pages, |run| held += run.end - run.start)?;
        Ok(held)
    }

    /// Visits the parts of a run of huge pages that are not the zero page. A huge page is a zero page as a whole, or
    /// not at all.
    fn visit_huge(&self, address: u64, run: Range<u64>, visit: &mut impl FnMut(Range<u64>)) {
        let mut at = run.start;
        while at < run.end {
            let here = address + at * FRAME_BYTES;
            let next = ((here / BLOCK_BYTES + 1) * BLOCK_BYTES - address) / FRAME_BYTES;
            let part = at..next.min(run.end);
            at = part.end;
            // A page that cannot be checked counts as held, as the scan said.
            if read::is_held(&self.file, here).unwrap_or(true) {
                visit(part);
            }
        }
    }
}
