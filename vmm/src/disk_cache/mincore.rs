//! `mincore`: pages of a mapped file in the page cache, for kernels without `cachestat`. O(pages of the file).
//!
//! Nothing of the mapping is touched, so it takes no page tables, and it is gone before the next window is mapped. The kernel
//! says "all of it" to who neither owns the file nor may write it (`can_do_mincore` in mm/mincore.c): not to be asked then.

use protocol::bytes::FRAME_BYTES;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// What is mapped at a time.
const WINDOW_BYTES: u64 = 64 << 20;

/// Cached bytes of a part of a file, in whole pages.
pub(super) fn cached_bytes(file: &File, part: &Range<u64>) -> io::Result<u64> {
    let mut pages = 0;
    let mut at = part.start / FRAME_BYTES * FRAME_BYTES;
    while at < part.end {
        let window = (part.end - at).min(WINDOW_BYTES);
        pages += window_pages(file, at, window)?;
        at += window;
    }
    Ok(pages * FRAME_BYTES)
}

fn window_pages(file: &File, at: u64, len: u64) -> io::Result<u64> {
    let (Ok(offset), Ok(len)) = (libc::off_t::try_from(at), usize::try_from(len)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // SAFETY: a new mapping at an address of the kernel's choice, checked below.
    let map = unsafe {
        libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), offset)
    };
    if map == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let mut there = vec![0u8; (len as u64).div_ceil(FRAME_BYTES) as usize];
    // SAFETY: the mapping made above, and a byte for each of its pages.
    let result = unsafe { libc::mincore(map, len, there.as_mut_ptr()) };
    let answer = if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: the mapping made above, to which nothing points any more.
    unsafe { libc::munmap(map, len) };
    answer?;
    Ok(there.iter().filter(|byte| **byte & 1 != 0).count() as u64)
}
