//! The `PAGEMAP_SCAN` ioctl (Linux 6.7, include/uapi/linux/fs.h): runs of pages by category.
//!
//! `walk_end` is not used to go on. With more regions than the kernel's own buffer holds it is stale (seen on 6.18: all
//! regions were returned, `walk_end` was not at the end), and a loop on it would see pages twice. Instead: fewer
//! regions than there is room for means that the walk is complete, and otherwise it goes on at the end of the last
//! region.
#![allow(unsafe_code)]

use protocol::bytes::BLOCK_BYTES;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong =
    3 << 30 | (size_of::<ScanArg>() as libc::c_ulong) << 16 | (b'f' as libc::c_ulong) << 8 | 16;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PAGE_IS_HUGE: u64 = 1 << 6;
/// Regions per call: 12 KiB, the size of the kernel's own buffer.
const REGIONS: usize = 512;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// Which pages are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Anonymous memory, resident or swapped out: not the zero page.
    Held,
    /// Pages of a file that are mapped.
    File,
}

impl Wanted {
    /// Categories that are inverted, that all must be there, and of which one must be.
    fn masks(self) -> (u64, u64, u64) {
        match self {
            Self::Held => (PAGE_IS_PFNZERO, PAGE_IS_PFNZERO, PAGE_IS_PRESENT | PAGE_IS_SWAPPED),
            Self::File => (0, PAGE_IS_FILE | PAGE_IS_PRESENT, 0),
        }
    }
}

/// True if this kernel has the ioctl.
pub(super) fn is_there(file: &File) -> bool {
    // An empty walk is refused by nothing but its absence.
    call(file, 0, 0, Wanted::Held, &mut [PageRegion::default()]).is_ok()
}

/// Visits the wanted regions between two addresses: start, end, and whether they are huge pages.
pub(super) fn regions(
    file: &File,
    start: u64,
    end: u64,
    wanted: Wanted,
    mut visit: impl FnMut(u64, u64, bool),
) -> io::Result<()> {
    let mut regions = [PageRegion::default(); REGIONS];
    let mut at = start;
    while at < end {
        let count = call(file, at, end, wanted, &mut regions)?;
        for region in &regions[..count] {
            visit(region.start, region.end, region.categories & PAGE_IS_HUGE != 0);
        }
        if count < REGIONS {
            return Ok(());
        }
        at = regions[count - 1].end;
    }
    Ok(())
}

fn call(file: &File, start: u64, end: u64, wanted: Wanted, regions: &mut [PageRegion]) -> io::Result<usize> {
    let (category_inverted, category_mask, category_anyof_mask) = wanted.masks();
    let mut argument = ScanArg {
        size: size_of::<ScanArg>() as u64,
        start,
        end,
        vec: regions.as_mut_ptr() as u64,
        vec_len: regions.len() as u64,
        category_inverted,
        category_mask,
        category_anyof_mask,
        return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_HUGE,
        ..ScanArg::default()
    };
    loop {
        // SAFETY: the argument has the kernel's layout and size, and `vec` points to `vec_len` regions that only this
        // call uses.
        let count = unsafe { libc::ioctl(file.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut argument) };
        match usize::try_from(count) {
            Ok(count) => return Ok(count.min(regions.len())),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// True if this kernel's scan distinguishes the huge zero page from memory; false if that cannot be found out.
pub(super) fn knows_huge_zero_page(file: &File) -> io::Result<bool> {
    let area = super::super::mapping::Mapping::anonymous(BLOCK_BYTES)?;
    let address = area.address();
    // Zero, and from now on the huge zero page is mapped where there is one.
    area.read_first_byte();
    let mut seen = false;
    let end = address + BLOCK_BYTES;
    let result = regions(file, address, end, Wanted::Held, |_, _, _| seen = true);
    let huge = all_present(file, address);
    result?;
    Ok(huge && !seen)
}

/// True if the last page of a block is present although only its first was read: a huge page is there.
fn all_present(file: &File, address: u64) -> bool {
    use std::os::unix::fs::FileExt;
    let mut word = [0; 8];
    let last = (address + BLOCK_BYTES) / 4096 - 1;
    file.read_exact_at(&mut word, last * 8).is_ok() && u64::from_ne_bytes(word) >> 63 == 1
}
