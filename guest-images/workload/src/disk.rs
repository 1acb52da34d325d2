//! Disks, past the guest's page cache: what is read came from the device, what is written reached it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::pattern::{self, Checksum};
use crate::region::{Region, Writable};
use crate::reply::Reply;
use rustix::fs::FallocateFlags;

/// Direct I/O moves whole sectors.
const SECTOR_BYTES: u64 = 512;
/// Bytes moved by one request.
const CHUNK_BYTES: u64 = 256 << 10;

/// Writes the pattern of `seed` and flushes the device's cache.
pub fn write(device: &str, offset: u64, bytes: u64, seed: u64) -> io::Result<Reply> {
    let (file, mut buffer) = open(OpenOptions::new().write(true), device, offset, bytes)?;
    let sum = each_chunk(bytes, &mut buffer, |at, chunk| {
        pattern::fill(seed, at, chunk);
        file.write_all_at(chunk, offset + at)
    })?;
    file.sync_all()?;
    Ok(Reply::new().number("bytes", bytes).text("checksum", &sum))
}

/// Fills a range with zeros that need no blocks: a write zeroes request with the unmap flag, and an error where the
/// device does not take one (`blkdev_fallocate` in block/fops.c).
pub fn clear(device: &str, offset: u64, bytes: u64) -> io::Result<Reply> {
    let (file, _) = open(OpenOptions::new().write(true), device, offset, bytes)?;
    rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, bytes)?;
    file.sync_all()?;
    Ok(Reply::new().number("bytes", bytes))
}

/// Reads exactly `bytes`.
pub fn read(device: &str, offset: u64, bytes: u64) -> io::Result<Reply> {
    let (file, mut buffer) = open(OpenOptions::new().read(true), device, offset, bytes)?;
    let sum = each_chunk(bytes, &mut buffer, |at, chunk| file.read_exact_at(chunk, offset + at))?;
    Ok(Reply::new().number("bytes", bytes).text("checksum", &sum))
}

fn open(options: &mut OpenOptions, device: &str, offset: u64, bytes: u64) -> io::Result<(File, Writable)> {
    if !offset.is_multiple_of(SECTOR_BYTES) || !bytes.is_multiple_of(SECTOR_BYTES) {
        let problem = format!("offset {offset} and bytes {bytes} must be multiples of {SECTOR_BYTES}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    if offset.checked_add(bytes).is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "offset and bytes overflow"));
    }
    Ok((options.custom_flags(libc::O_DIRECT).open(device)?, Region::anonymous(CHUNK_BYTES)?))
}

/// Calls `step` with each chunk's position and its part of the buffer; returns the checksum of all.
fn each_chunk(
    bytes: u64,
    buffer: &mut Writable,
    mut step: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<String> {
    let mut sum = Checksum::default();
    let mut at = 0;
    while at < bytes {
        let n = (bytes - at).min(CHUNK_BYTES) as usize;
        let chunk = &mut buffer.content_mut()[..n];
        step(at, chunk)?;
        sum.update(chunk);
        at += n as u64;
    }
    Ok(sum.hex())
}
