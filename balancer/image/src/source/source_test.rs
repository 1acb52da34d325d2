//! What sources become, by what is read back from their images.

use super::*;
use crate::testing::{self, Node, read_back};
use ::tar::{Builder, EntryType, Header};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

type Nodes = BTreeMap<String, Node>;

struct Any(Box<dyn Source>);

impl Source for Any {
    fn origin(&self) -> Origin {
        self.0.origin()
    }
    fn tree(&mut self, watch: &mut Watch<'_>) -> Result<Tree, BuildError> {
        self.0.tree(watch)
    }
    fn contents(
        &mut self,
        tree: &Tree,
        traversal: &Traversal<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), BuildError> {
        self.0.contents(tree, traversal, sink)
    }
}

/// The images of a path: what is in them, and their digests.
fn images(path: &Path) -> Result<Vec<(Nodes, String)>, BuildError> {
    let image = |source| {
        let (file, digest) = testing::build(Any(source))?;
        Ok((read_back(&file), digest.to_string()))
    };
    sources(path)?.into_iter().map(image).collect()
}

fn sources(path: &Path) -> Result<Vec<Box<dyn Source>>, BuildError> {
    let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
    open(path, &std::env::temp_dir(), &mut Watch::new(&cancelled, &mut report))
}

fn image(path: &Path) -> (Nodes, String) {
    images(path).unwrap().remove(0)
}

fn refusal(path: &Path) -> String {
    match images(path) {
        Err(error) => match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
        Ok(_) => panic!("{} was taken", path.display()),
    }
}

#[path = "dialects_test.rs"]
mod dialects;
#[path = "differential_test.rs"]
mod differential;
#[path = "dir_test.rs"]
mod folders;
#[path = "oci_test.rs"]
mod layouts;
#[path = "odd_test.rs"]
mod odd;
#[path = "saved_test.rs"]
mod saved;
#[path = "stack_test.rs"]
mod stacked;
#[path = "tar_test.rs"]
mod tars;

/// An archive that GNU tar reads as well.
pub(crate) fn odd_archive(seed: u64) -> Vec<u8> {
    odd::Odd::new(seed, odd::Reader::Tar).archive()
}

/// A member of a tar: name, contents or target, type.
type Entry<'a> = (&'a str, &'a str, EntryType);

fn header(kind: EntryType, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(bytes);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// A header with any name, which crate `tar` would refuse to write.
fn raw(name: &str, link: &str, mut header: Header) -> Header {
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    header
}

/// A tar of entries: name, link target or contents, type.
fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, held, kind) in entries {
        let is_link = matches!(kind, EntryType::Link | EntryType::Symlink);
        let (link, contents) = if is_link { (*held, "") } else { ("", *held) };
        bytes.extend(raw(name, link, header(*kind, contents.len() as u64)).as_bytes());
        bytes.extend(contents.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    bytes
}

fn written(dir: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join("archive");
    fs::write(&path, bytes).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

const FILE: EntryType = EntryType::Regular;
const DIR: EntryType = EntryType::Directory;
const LINK: EntryType = EntryType::Link;
const SYMLINK: EntryType = EntryType::Symlink;
