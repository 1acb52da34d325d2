//! May a guest map this image? The check runs when an image was built, and when a guest is to map an image of another
//! origin.
//!
//! The whole tree is walked, in time and memory bounded by the image's length and [`ENTRIES_MAX`], whatever the image
//! says: a folder is entered once, and all folders together are not longer than the image.

use super::ENTRIES_MAX;
use super::erofs::format::{FileType, Layout};
use super::erofs::read::{Found, ReadError, Reader};
use super::sparse;
use super::tree::shown;
use protocol::bytes::BLOCK_BYTES as HUGE_BYTES;
use protocol::image::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};

/// What is in a good image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Length of the image.
    pub bytes: u64,
    /// Regular files; one with several names counts once.
    pub files: u64,
    /// Folders, with the root.
    pub folders: u64,
    /// All inodes that are neither folders nor regular files.
    pub others: u64,
    /// Bytes of the regular files.
    pub content_bytes: u64,
}

/// Why a guest may not map an image.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It is not a file.
    #[error("It is not a regular file")]
    NoFile,
    /// A mapping of it would reach beyond its end, where an access ends the process.
    #[error("It has {bytes} bytes, which must be a multiple of 2 MiB: lengthen it with zeros")]
    Length {
        /// Its length.
        bytes: u64,
    },
    /// It is not an image, or of a kind that is not known here.
    #[error("It cannot be used: {0}")]
    Image(ReadError),
    /// A file that cannot be mapped with DAX: each guest would have its own copy.
    #[error("{path} is {what}, so it cannot be mapped with DAX and every guest would hold a copy; {hint}")]
    NotShared {
        /// The first such file.
        path: String,
        /// How it is laid out.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A part lies outside the image, or is not an inode.
    #[error("{path}: {what}")]
    Damaged {
        /// Where.
        path: String,
        /// What. A part of the text, since this is one sentence.
        what: ReadError,
    },
    /// The entries are not a tree.
    #[error("{path}: {what}")]
    Tree {
        /// Where.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
    /// More entries than the check visits.
    #[error("It has more than {ENTRIES_MAX} entries, or folders longer than itself")]
    Endless,
    /// Its content does not have the digest in its name.
    #[error("Its digest is {found}, not {expected}: it was changed or is damaged")]
    Digest {
        /// Its name.
        expected: Digest,
        /// Its content's digest.
        found: Digest,
    },
    /// The system refused.
    #[error("It cannot be read")]
    Read(#[from] io::Error),
}

impl From<ReadError> for CheckError {
    fn from(error: ReadError) -> Self {
        Self::Image(error)
    }
}

/// Checks that a guest can map this image, and every regular file in it with DAX: blocks of 4096 bytes, nothing
/// compressed, packed or chunked, nothing outside, a tree without cycles, a length that is a multiple of 2 MiB. Does
/// not check the digest.
///
/// # Errors
/// The first defect, with its path in the image.
pub fn check(file: &File) -> Result<Report, CheckError> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(CheckError::NoFile);
    }
    let reader = Reader::open(file)?;
    let mut walk = Walk {
        reader: &reader,
        report: Report { bytes: metadata.len(), ..Report::default() },
        folders: Vec::new(),
        seen: HashSet::new(),
        entries: 0,
        folder_bytes: 0,
    };
    walk.enter(reader.sb.root.into(), 0, Box::default())?;
    let mut next = 0;
    while next < walk.folders.len() {
        walk.visit_folder(next)?;
        next += 1;
    }
    let report = walk.report;
    if !report.bytes.is_multiple_of(HUGE_BYTES) {
        return Err(CheckError::Length { bytes: report.bytes });
    }
    Ok(report)
}

/// The SHA-256 of a file from its begin to its end.
///
/// # Errors
/// When it cannot be read.
pub fn digest(file: &File) -> io::Result<Digest> {
    digest_with(file, |_| Ok(()))
}

/// As [`digest`], and calls `step` for every MiB.
pub(super) fn digest_with<E: From<io::Error>>(
    file: &File,
    mut step: impl FnMut(u64) -> Result<(), E>,
) -> Result<Digest, E> {
    let (mut hash, mut buffer, mut reader) = (Sha256::new(), vec![0; 1 << 20], sparse::Reader::new(file));
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(Digest::new(hash.finalize().into())),
            Ok(count) => {
                hash.update(&buffer[..count]);
                step(count as u64)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

struct Folder {
    found: Found,
    above: usize,
    name: Box<[u8]>,
}

struct Walk<'a> {
    reader: &'a Reader<'a>,
    report: Report,
    /// Folders in the order in which they were found; the root is its own parent.
    folders: Vec<Folder>,
    seen: HashSet<u64>,
    entries: usize,
    folder_bytes: u64,
}

impl Walk<'_> {
    fn path(&self, mut folder: usize, name: &[u8]) -> String {
        let mut names = vec![name];
        while folder != 0 {
            names.push(&self.folders[folder].name);
            folder = self.folders[folder].above;
        }
        names.reverse();
        shown(&names.join(&b'/'))
    }

    fn enter(&mut self, nid: u64, above: usize, name: Box<[u8]>) -> Result<(), CheckError> {
        let damaged = |walk: &Self, what| CheckError::Damaged { path: walk.path(above, &name), what };
        let found = self.reader.inode(nid).map_err(|error| damaged(self, error))?;
        let tree = |walk: &Self, what| Err(CheckError::Tree { path: walk.path(above, &name), what });
        if FileType::from_mode(found.head.mode) != Some(FileType::Directory) {
            return tree(self, "the root is not a folder");
        }
        if !matches!(found.head.layout, Layout::FlatPlain | Layout::FlatInline) {
            return tree(self, "the folder is compressed or chunked");
        }
        if !self.seen.insert(nid) {
            return tree(self, "the folder has two names, so the tree may have a cycle");
        }
        self.reader.check_blocks(&found).map_err(|error| damaged(self, error))?;
        self.folder_bytes = self.folder_bytes.saturating_add(found.head.bytes);
        if self.folder_bytes > self.report.bytes {
            return Err(CheckError::Endless);
        }
        self.report.folders += 1;
        self.folders.push(Folder { found, above, name });
        Ok(())
    }

    fn visit_folder(&mut self, index: usize) -> Result<(), CheckError> {
        let found = self.folders[index].found;
        let reader = self.reader;
        let mut last: Option<Vec<u8>> = None;
        let seen = reader.directory(&found, |entry| {
            self.entries += 1;
            if self.entries > 3 * ENTRIES_MAX {
                return Err(CheckError::Endless);
            }
            if last.as_deref().is_some_and(|last| last >= entry.name) {
                let what = "the names of a folder are not in the order of their bytes";
                return Err(CheckError::Tree { path: self.path(index, entry.name), what });
            }
            last = Some(entry.name.into());
            if entry.name == b"." || entry.name == b".." {
                Ok(())
            } else {
                self.visit(index, entry.name, entry.nid, entry.kind)
            }
        });
        seen.map_err(|error| match error {
            CheckError::Image(what) => CheckError::Damaged { path: self.path(index, b""), what },
            other => other,
        })
    }

    fn visit(&mut self, folder: usize, name: &[u8], nid: u64, kind: u8) -> Result<(), CheckError> {
        let damaged = |walk: &Self, what| CheckError::Damaged { path: walk.path(folder, name), what };
        let found = self.reader.inode(nid).map_err(|error| damaged(self, error))?;
        let file_type = FileType::from_mode(found.head.mode);
        if file_type.map(FileType::number) != Some(kind) {
            let what = "its type in its folder is not the type of its inode";
            return Err(CheckError::Tree { path: self.path(folder, name), what });
        }
        if file_type == Some(FileType::Directory) {
            return self.enter(nid, folder, name.into());
        }
        if !self.seen.insert(nid) {
            return Ok(());
        }
        if file_type != Some(FileType::Regular) {
            self.report.others += 1;
            return Ok(());
        }
        let (what, hint) = match found.head.layout {
            Layout::FlatPlain => ("", ""),
            Layout::CompressedFull | Layout::CompressedCompact => ("compressed", "build it without -z"),
            Layout::FlatInline => {
                ("packed behind its inode", "build it with balancer image build, or with -Enoinline_data")
            }
            Layout::Chunked => ("chunked", "build it without --chunksize"),
        };
        if !what.is_empty() {
            return Err(CheckError::NotShared { path: self.path(folder, name), what, hint });
        }
        self.reader.check_blocks(&found).map_err(|error| damaged(self, error))?;
        self.report.files += 1;
        self.report.content_bytes = self.report.content_bytes.saturating_add(found.head.bytes);
        Ok(())
    }
}

#[cfg(test)]
#[path = "check_test.rs"]
mod tests;
