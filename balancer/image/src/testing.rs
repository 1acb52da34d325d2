//! Trees in memory, images of them, and a second reader of images.

use super::build::build_tree;
use super::erofs::format::{self, BLOCK_BYTES, FileType};
use super::erofs::{Reader, xattr};
use super::error::BuildError;
use super::source::{Origin, Sink, Source};
use super::tree::{Inode, InodeId, Kind, Traversal, Tree, shown};
use super::watch::Watch;
use protocol::image::Digest;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

/// A tree whose contents are in memory.
#[derive(Default)]
pub(super) struct Memory {
    pub tree: Tree,
    pub contents: HashMap<InodeId, Vec<u8>>,
}

impl Memory {
    /// Adds a file under a path whose folders are made.
    pub(super) fn file(&mut self, path: &str, contents: &[u8]) -> InodeId {
        let id = self.add(path, Inode::new(0o644, Kind::Regular(contents.len() as u64)));
        self.contents.insert(id, contents.to_vec());
        id
    }

    pub(super) fn add(&mut self, path: &str, inode: Inode) -> InodeId {
        let id = self.tree.add(inode).unwrap();
        self.link(path, id);
        id
    }

    pub(super) fn link(&mut self, path: &str, id: InodeId) {
        let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut folder = self.tree.root();
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            folder = self.tree.lookup(folder, part.as_bytes()).unwrap_or_else(|| {
                let id = self.tree.add(Inode::folder()).unwrap();
                self.tree.link(folder, part.as_bytes(), id).unwrap();
                id
            });
        }
        self.tree.link(folder, name.as_bytes(), id).unwrap();
    }

    pub(super) fn build(self) -> (File, Digest) {
        build(self).unwrap()
    }
}

/// The tree is taken, as that of a real source is made: once.
impl Source for Memory {
    fn origin(&self) -> Origin {
        Origin { name: "memory".into(), layer: None }
    }

    fn tree(&mut self, _: &mut Watch<'_>) -> Result<Tree, BuildError> {
        Ok(std::mem::take(&mut self.tree))
    }

    fn contents(
        &mut self,
        _: &Tree,
        traversal: &Traversal<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), BuildError> {
        for (id, contents) in &self.contents {
            if traversal.links(*id) > 0 {
                sink(*id, &mut contents.as_slice())?;
            }
        }
        Ok(())
    }
}

/// An image of a source in an unnamed file.
pub(super) fn build(mut source: impl Source) -> Result<(File, Digest), BuildError> {
    let file = tempfile::tempfile().unwrap();
    let (cancelled, mut report) = (AtomicBool::new(false), |_| ());
    let (digest, _) = build_tree(&mut source, &file, &mut Watch::new(&cancelled, &mut report))?;
    Ok((file, digest))
}

/// The inode at a path of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub mode: u16,
    pub owner: (u32, u32),
    pub links: u32,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Contents, target, device number as text, or nothing.
    pub held: Vec<u8>,
    /// Names of one inode have the same first path.
    pub first: String,
}

/// Everything in an image, by path.
pub(super) fn read_back(file: &File) -> BTreeMap<String, Node> {
    let reader = Reader::open(file).unwrap();
    let mut nodes = BTreeMap::new();
    let mut firsts = HashMap::new();
    let mut waiting = vec![(u64::from(reader.sb.root), Vec::new())];
    while let Some((nid, path)) = waiting.pop() {
        let found = reader.inode(nid).unwrap();
        let kind = FileType::from_mode(found.head.mode).unwrap();
        let held = match kind {
            FileType::Directory => {
                reader
                    .directory::<super::erofs::read::ReadError>(&found, |entry| {
                        if entry.name != b"." && entry.name != b".." {
                            let mut below = path.clone();
                            if !below.is_empty() {
                                below.push(b'/');
                            }
                            below.extend(entry.name);
                            waiting.push((entry.nid, below));
                        }
                        Ok(())
                    })
                    .unwrap();
                Vec::new()
            }
            FileType::Regular | FileType::Symlink => {
                let mut held = vec![0; found.head.bytes as usize];
                for (chunk, offset) in
                    held.chunks_mut(BLOCK_BYTES as usize).zip((0..).step_by(BLOCK_BYTES as usize))
                {
                    reader.read(&found, offset, chunk).unwrap();
                }
                held
            }
            FileType::Char | FileType::Block => format!("{:?}", format::major_minor(found.head.raw)).into(),
            FileType::Fifo | FileType::Socket => Vec::new(),
        };
        let first = firsts.entry(nid).or_insert_with(|| shown(&path)).clone();
        let node = Node {
            mode: found.head.mode,
            owner: (found.head.uid, found.head.gid),
            links: found.head.links,
            xattrs: xattr::decode(&reader.xattrs(&found).unwrap()).unwrap(),
            held,
            first,
        };
        nodes.insert(shown(&path), node);
    }
    nodes
}

/// What `fsck.erofs` says of an image; `None` where it does not start, which is a skip.
pub(super) fn fsck(image: &Path) -> Option<Result<(), String>> {
    let output = match Command::new("fsck.erofs").arg("--extract").arg(image).output() {
        Ok(output) => output,
        Err(error) => {
            skip::skip!(ErofsUtils, "fsck.erofs does not start ({error}); scripts/setup.sh installs it");
            return None;
        }
    };
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Some(if output.status.success() { Ok(()) } else { Err(said) })
}
