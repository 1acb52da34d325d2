//! Files with holes: what a file does not have on the disk reads as zeros, and is neither read nor written here.

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Zeros are left out in pieces of this length: a block of all file systems that matter.
const PIECE_BYTES: usize = 4096;

/// Reads a file from its begin. A read returns data or zeros of a hole, never both.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    file: &'a File,
    at: u64,
    /// From here on there may be a hole.
    data_end: u64,
    /// From here on there is data again.
    hole_end: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a File) -> Self {
        Self { file, at: 0, data_end: 0, hole_end: 0 }
    }

    /// Finds the hole or the data that begins at the place that is read next.
    fn find(&mut self) -> io::Result<()> {
        let end = || self.file.metadata().map(|metadata| metadata.len());
        match rustix::fs::seek(self.file, SeekFrom::Data(self.at)) {
            Ok(data) if data > self.at => self.hole_end = data,
            Ok(data) => self.data_end = rustix::fs::seek(self.file, SeekFrom::Hole(data))?,
            // No data up to the end.
            Err(Errno::NXIO) => self.hole_end = end()?,
            // A file system that does not know holes.
            Err(_) => self.data_end = end()?,
        }
        Ok(())
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.data_end.max(self.hole_end) {
            self.find()?;
        }
        let bound = |end: u64| usize::try_from(end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = if self.at < self.hole_end {
            let count = bound(self.hole_end);
            buffer[..count].fill(0);
            count
        } else if self.at < self.data_end {
            let count = bound(self.data_end);
            self.file.read_at(&mut buffer[..count], self.at)?
        } else {
            0
        };
        self.at += count as u64;
        Ok(count)
    }
}

/// Bytes that are copied at once. The kernel keeps what is written at once in one folio (ext4 since Linux 6.16), and a
/// fault maps a folio of 2 MiB as a whole: a guest would hold, and pay for, what it never touched.
const COPY_BYTES: usize = 64 << 10;

/// Copies a file to an empty one; holes and zeros become holes.
pub(crate) fn copy(from: &File, to: &File) -> io::Result<()> {
    to.set_len(from.metadata()?.len())?;
    let (mut reader, mut buffer) = (Reader::new(from), vec![0; COPY_BYTES]);
    loop {
        let at = reader.at;
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => write_at(to, &buffer[..count], at)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes bytes into a hole, without those pieces that are zeros.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let is_zero = |piece: &[u8]| piece.iter().all(|byte| *byte == 0);
    let run = |at: usize, zero: bool| -> usize {
        let pieces = bytes[at..].chunks(PIECE_BYTES);
        pieces.take_while(|piece| is_zero(piece) == zero).map(<[u8]>::len).sum()
    };
    let mut at = 0;
    while at < bytes.len() {
        at += run(at, true);
        let data = run(at, false);
        file.write_all_at(&bytes[at..at + data], offset + at as u64)?;
        at += data;
    }
    Ok(())
}

/// What a file takes on the disk, bytes.
pub(crate) fn taken(metadata: &std::fs::Metadata) -> u64 {
    // The unit of st_blocks, whatever the file system's blocks are (stat(2)).
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of 40 MiB with data at some places.
    fn sparse(places: &[(u64, u8)]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(40 << 20).unwrap();
        for (at, byte) in places {
            file.write_all_at(&[*byte; 3], *at).unwrap();
        }
        file
    }

    fn whole(mut file: impl Read) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn holes_read_as_zeros_and_stay_holes_in_a_copy() {
        for places in [&[][..], &[(0, 1)], &[(5 << 20, 1), (39 << 20, 2)], &[((40 << 20) - 3, 7), (4095, 1)]]
        {
            let file = sparse(places);
            let copied = tempfile::tempfile().unwrap();
            copy(&file, &copied).unwrap();
            let bytes = whole(Reader::new(&file));
            assert_eq!(bytes.len(), 40 << 20);
            for (at, byte) in places {
                assert_eq!(bytes[*at as usize..][..3], [*byte; 3], "{places:?}");
            }
            assert!(bytes == whole(&copied) && bytes == whole(Reader::new(&copied)), "{places:?}");
            let taken = taken(&copied.metadata().unwrap());
            assert!(taken <= 1 << 20, "{taken} for {places:?}");
        }
    }

    #[test]
    fn zeros_that_were_written_become_holes() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![0; 8 << 20], 0).unwrap();
        file.write_all_at(b"x", 4 << 20).unwrap();
        let copied = tempfile::tempfile().unwrap();
        copy(&file, &copied).unwrap();
        assert!(taken(&copied.metadata().unwrap()) <= 64 << 10);
        assert!(whole(Reader::new(&file)) == whole(Reader::new(&copied)));
    }
}
