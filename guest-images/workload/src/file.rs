//! Files, through the guest's page cache.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::pattern::{self, Checksum};
use crate::reply::Reply;

/// Bytes moved at a time; a multiple of 8, as patterns and checksums want.
const CHUNK_BYTES: usize = 256 << 10;

/// Writes `bytes` of the pattern of `seed` into a new file.
pub fn fill(path: &str, bytes: u64, seed: u64) -> io::Result<Reply> {
    let mut file = File::create(path)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut sum = Checksum::default();
    let mut offset = 0;
    while offset < bytes {
        let n = (bytes - offset).min(CHUNK_BYTES as u64) as usize;
        pattern::fill(seed, offset, &mut buffer[..n]);
        file.write_all(&buffer[..n])?;
        sum.update(&buffer[..n]);
        offset += n as u64;
    }
    Ok(Reply::new().number("bytes", offset).text("checksum", &sum.hex()))
}

/// Reads a file up to its end, or `bytes_max` of it.
pub fn read(path: &str, bytes_max: u64) -> io::Result<Reply> {
    let mut file = File::open(path)?.take(bytes_max);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut sum = Checksum::default();
    let mut bytes = 0;
    loop {
        let n = read_full(&mut file, &mut buffer)?;
        sum.update(&buffer[..n]);
        bytes += n as u64;
        if n < CHUNK_BYTES {
            return Ok(Reply::new().number("bytes", bytes).text("checksum", &sum.hex()));
        }
    }
}

/// Reads until the buffer is full or the file ends, so that only the last chunk is short.
pub(crate) fn read_full(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}
