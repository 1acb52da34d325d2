//! The file behind a disk: its capacity, and vectored transfers between it and guest RAM. The one module of this crate
//! with unsafe code: the kernel reads and writes guest RAM, which is never borrowed as a Rust reference.
#![allow(unsafe_code)]

use super::ranges::Range;
use super::{REQUEST_BYTES_MAX, SECTOR_BYTES};
use crate::virtio::buffers::{Access, Readable, Segments, Writable};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

/// A file of whole sectors.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    sectors: u64,
    read_only: bool,
}

/// Vectored transfer at a position: preadv(2) or pwritev(2). Unsafe to call: the vectors have to describe mapped
/// memory.
type Transfer = unsafe extern "C" fn(RawFd, *const libc::iovec, libc::c_int, libc::off64_t) -> libc::ssize_t;

impl Disk {
    pub fn new(mut file: File, read_only: bool) -> io::Result<Self> {
        // Seeking, unlike fstat, also returns the length of a block device.
        let len = file.seek(SeekFrom::End(0))?;
        if !len.is_multiple_of(SECTOR_BYTES) {
            let text = format!("Disk of {len} bytes is not a multiple of {SECTOR_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(Self { file, sectors: len / SECTOR_BYTES, read_only })
    }

    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// The byte position of a transfer of `len` bytes at `sector`, if the disk has all of it.
    pub fn position(&self, sector: u64, len: usize) -> Option<u64> {
        let whole = (len as u64).is_multiple_of(SECTOR_BYTES) && len <= REQUEST_BYTES_MAX;
        let last = sector.checked_add(len as u64 / SECTOR_BYTES)?;
        // No overflow: the disk's length in bytes fits.
        (whole && last <= self.sectors).then(|| sector * SECTOR_BYTES)
    }

    /// Reads from the file into guest RAM.
    pub fn read(&self, position: u64, data: &Segments<'_, Writable>) -> io::Result<()> {
        self.transfer(libc::preadv64, position, data)
    }

    /// Writes from guest RAM into the file.
    pub fn write(&self, position: u64, data: &Segments<'_, Readable>) -> io::Result<()> {
        self.transfer(libc::pwritev64, position, data)
    }

    /// Makes everything written so far stable.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Frees what the host holds for a range, where it can: what is read there afterwards does not matter.
    pub fn discard(&self, range: Range) -> io::Result<()> {
        match self.allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, range) {
            Err(Errno::OPNOTSUPP | Errno::NODEV) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Fills a range with zeros, by a hole if it may be one.
    pub fn write_zeroes(&self, range: Range) -> io::Result<()> {
        let how = match range.may_unmap {
            true => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            false => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        };
        match self.allocate(how, range) {
            Err(Errno::OPNOTSUPP | Errno::NODEV) => {
                let zeros = vec![0; range.bytes() as usize];
                self.file.write_all_at(&zeros, range.sector * SECTOR_BYTES)
            }
            done => Ok(done?),
        }
    }

    fn allocate(&self, how: FallocateFlags, range: Range) -> rustix::io::Result<()> {
        if range.sectors == 0 {
            return Ok(());
        }
        rustix::io::retry_on_intr(|| {
            rustix::fs::fallocate(&self.file, how, range.sector * SECTOR_BYTES, range.bytes())
        })
    }

    fn transfer<A: Access + Default>(
        &self,
        call: Transfer,
        mut position: u64,
        data: &Segments<'_, A>,
    ) -> io::Result<()> {
        // The guards keep the memory mapped for as long as the vectors point to it.
        let guards: Vec<_> = data.slices().map(|slice| slice.ptr_guard_mut()).collect();
        let mut vectors: Vec<_> = guards
            .iter()
            .map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() })
            .collect();
        let mut rest = vectors.as_mut_slice();
        while !rest.is_empty() {
            let count = rest.len().min(libc::UIO_MAXIOV as usize) as libc::c_int;
            // SAFETY: each vector describes guest memory that `guards` keeps mapped, and that may be written where the
            // call does so; it is never borrowed as a Rust reference, and any bytes are valid in it. The descriptor is
            // open for as long as `self`.
            let done =
                unsafe { call(self.file.as_raw_fd(), rest.as_ptr(), count, position as libc::off64_t) };
            match usize::try_from(done) {
                // The file became shorter meanwhile.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(done) => {
                    position += done as u64;
                    advance(&mut rest, done);
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Moves the start of `vectors` by `count` bytes, after a short transfer.
fn advance(vectors: &mut &mut [libc::iovec], mut count: usize) {
    while let Some(first) = vectors.first_mut() {
        if count < first.iov_len {
            first.iov_base = first.iov_base.wrapping_byte_add(count);
            first.iov_len -= count;
            return;
        }
        count -= first.iov_len;
        *vectors = &mut std::mem::take(vectors)[1..];
    }
}
