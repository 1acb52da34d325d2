//! A tar file, as it is or compressed, read from its begin to its end as often as needed.

use super::decompress::{Compression, Hashed};
use super::tar::{Member, Members, TarError};
use crate::error::BuildError;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

/// Most zeros behind the end of an archive: tar fills its last record, 10 KiB as a rule, at most `--blocking-factor`.
const PADDING_BYTES_MAX: u64 = 64 << 20;

/// A file, or a part of one: a layer inside a saved image is a part of the saved image.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub file: Arc<File>,
    pub begin: u64,
    pub bytes: u64,
}

impl Part {
    /// All of a file, to its end: also what is behind the end that it has now.
    pub(super) fn whole(file: File) -> Self {
        Self { file: Arc::new(file), begin: 0, bytes: u64::MAX }
    }

    /// A reader from the begin, with a place of its own.
    pub(super) fn reader(&self) -> PartReader<'_> {
        PartReader { part: self, at: 0 }
    }

    /// The compression by the first bytes.
    pub(super) fn compression(&self) -> io::Result<Result<Compression, &'static str>> {
        let mut begin = Vec::new();
        self.reader().take(8).read_to_end(&mut begin)?;
        Ok(Compression::of(&begin))
    }
}

/// Reads a [`Part`].
pub(super) struct PartReader<'a> {
    part: &'a Part,
    at: u64,
}

impl Read for PartReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bound = (self.part.bytes - self.at).min(buffer.len() as u64) as usize;
        let count = self.part.file.read_at(&mut buffer[..bound], self.part.begin + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// The SHA-256 that an archive must have, in hexadecimal.
#[derive(Debug, Clone)]
pub(super) enum Vouched {
    /// None: it is a tar on its own.
    No,
    /// As it is stored.
    Stored(String),
    /// Of the tar, after decompression: what an image's `rootfs.diff_ids` name.
    Tar(String),
}

/// An open tar.
#[derive(Debug)]
pub(super) struct Archive {
    /// Its name in messages.
    pub name: String,
    pub part: Part,
    pub compression: Compression,
    pub vouched: Vouched,
}

/// The stream, with its hash if that is wanted.
fn hashed<'a>(source: impl Read + 'a, wanted: bool) -> (Box<dyn Read + 'a>, Option<Rc<RefCell<Sha256>>>) {
    if !wanted {
        return (Box::new(source), None);
    }
    let (source, hash) = Hashed::new(source);
    (Box::new(source), Some(hash))
}

/// The members of an archive, one after the other.
pub(super) type Walk<'a> = Members<Box<dyn Read + 'a>>;

impl Archive {
    pub(super) fn refuse(&self, what: TarError) -> BuildError {
        BuildError::Tar { archive: self.name.clone(), what }
    }

    fn failed(&self, error: io::Error) -> BuildError {
        self.refuse(error.into())
    }

    /// Visits every member with its contents. Afterwards the file has the digest that it must have. Returns what was
    /// not read behind the archive, for people.
    pub(super) fn each(
        &self,
        mut see: impl FnMut(Member, &mut Walk<'_>) -> Result<(), BuildError>,
    ) -> Result<Option<String>, BuildError> {
        let (stored, stored_hash) = hashed(self.part.reader(), matches!(self.vouched, Vouched::Stored(_)));
        let (plain, rest) = self.compression.reader(stored);
        let (plain, tar_hash) = hashed(plain, matches!(self.vouched, Vouched::Tar(_)));
        let mut members = Members::new(plain, !matches!(self.vouched, Vouched::No));
        while let Some(member) = members.next().map_err(|error| self.refuse(error))? {
            see(member, &mut members)?;
        }
        let behind = self.drain(members.into_rest())?;
        let (Vouched::Stored(expected) | Vouched::Tar(expected), Some(hash)) =
            (&self.vouched, stored_hash.or(tar_hash))
        else {
            return Ok(self.remark(behind, rest.bytes()));
        };
        let found: String = hash.take().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == *expected {
            return Ok(self.remark(behind, rest.bytes()));
        }
        Err(self.refuse(TarError::Digest { expected: expected.clone(), found }))
    }

    fn remark(&self, behind: u64, rest: u64) -> Option<String> {
        let (bytes, of) = match (behind, rest) {
            (0, 0) => return None,
            (0, rest) => (rest, "its compressed part"),
            (behind, _) => (behind, "the end of the tar"),
        };
        let name = &self.name;
        Some(format!("{name}: {bytes} bytes behind {of} are not read; several archives need a build each"))
    }

    /// Reads what is behind the end; returns its length, or 0 for padding.
    fn drain(&self, mut rest: impl Read) -> Result<u64, BuildError> {
        let (mut buffer, mut bytes, mut other) = (vec![0; 1 << 16], 0_u64, false);
        loop {
            let count = match rest.read(&mut buffer) {
                Ok(0) => return Ok(if other { bytes } else { 0 }),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            bytes += count as u64;
            other |= buffer[..count].iter().any(|byte| *byte != 0);
            if !other && bytes > PADDING_BYTES_MAX {
                return Err(self.refuse(TarError::Trailing { bytes: PADDING_BYTES_MAX }));
            }
        }
    }
}
