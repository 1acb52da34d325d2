//! Memory mapped by this program, unmapped on drop.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::slice;

use crate::PAGE_BYTES;

/// A mapping that is at least readable.
#[derive(Debug)]
pub struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

impl Region {
    /// Private anonymous memory, `bytes` rounded up to pages; no page exists before it is touched.
    pub fn anonymous(bytes: u64) -> io::Result<Writable> {
        let map = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        Region::map(bytes, libc::PROT_READ | libc::PROT_WRITE, map, -1).map(|region| Writable { region })
    }

    /// A whole file or block device, shared and read-only.
    pub fn of_file(mut file: &File) -> io::Result<Region> {
        // A device has no length in its metadata.
        let bytes = file.seek(SeekFrom::End(0))?;
        Region::map(bytes, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd())
    }

    /// A whole file, private: what is written becomes memory of this program and never reaches the file.
    pub fn private_of_file(mut file: &File) -> io::Result<Writable> {
        let bytes = file.seek(SeekFrom::End(0))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        Region::map(bytes, protection, libc::MAP_PRIVATE, file.as_raw_fd()).map(|region| Writable { region })
    }

    fn map(bytes: u64, protection: i32, flags: i32, fd: i32) -> io::Result<Region> {
        let too_many = || io::Error::from_raw_os_error(libc::ENOMEM);
        let bytes = usize::try_from(bytes).map_err(|_| too_many())?;
        let bytes = bytes.checked_next_multiple_of(PAGE_BYTES).ok_or_else(too_many)?;
        // SAFETY: no address is asked for, so nothing that exists is replaced.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(too_many)?;
        Ok(Region { start, bytes })
    }

    /// Mapped bytes, a multiple of the page.
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// The content.
    pub fn content(&self) -> &[u8] {
        // SAFETY: the mapping has `bytes` readable bytes and lives as long as `self`; writes need `&mut`.
        // A mapped file is only written by commands of the same, single thread.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }

    /// Reads one byte of each page, which makes absent pages present. Returns the pages.
    pub fn touch(&self) -> u64 {
        let pages = self.content().chunks(PAGE_BYTES);
        for page in pages.clone() {
            std::hint::black_box(page[0]);
        }
        pages.len() as u64
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no slice of it outlives the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A mapping that can also be written.
#[derive(Debug)]
pub struct Writable {
    region: Region,
}

impl Writable {
    /// The content, to be changed.
    pub fn content_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `content`, the mapping is writable, and `&mut self` makes the slice the only one.
        unsafe { slice::from_raw_parts_mut(self.region.start.as_ptr(), self.region.bytes) }
    }
}

impl std::ops::Deref for Writable {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.region
    }
}
