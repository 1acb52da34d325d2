//! Layers from trees: what differs from machine to machine goes, and of a tree that stands on another one, what the
//! other one has already.
//!
//! A layer is a tar archive in order of its paths, hard links last, with times of 0. A path that the tree below has and
//! this one lacks becomes a whiteout, an empty file `.wh.NAME`
//! (<https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts>).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header};

use crate::cache;
use crate::error::{Error, FileContext, Result};

/// What no layer has. Below a name with a slash at its end folders stay, and nothing else.
pub(super) const LEFT_OUT: [&str; 28] = [
    // What a service never reads.
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/i18n",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    // What is another one on each machine, or after each run.
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/00mmdebstrap",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/",
    "etc/hostname",
    "etc/machine-id",
    "etc/resolv.conf",
    "etc/ssl/certs/ssl-cert-snakeoil.pem",
    "etc/ssl/private/ssl-cert-snakeoil.key",
    "dev/",
    "proc/",
    "run/",
    "sys/",
    "tmp/",
    "usr/sbin/policy-rc.d",
    "usr/sbin/start-stop-daemon.REAL",
    "var/cache/",
    "var/lib/apt",
    "var/log/",
];
/// The name that a certificate made on this machine has; its hashed name links to it.
const OWN_CERTIFICATE: &str = "ssl-cert-snakeoil.pem";
/// Begins the name of an entry that says what is gone.
const WHITEOUT: &str = ".wh.";

/// A file, folder or link of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    kind: EntryType,
    mode: u32,
    owner: (u64, u64),
    /// What a link leads to; a hard link's without `./`.
    link: Option<PathBuf>,
    /// Of a regular file's content.
    sha256: Option<[u8; 32]>,
}

/// A tree in a tar archive, without what is [`LEFT_OUT`].
#[derive(Debug, Clone)]
pub(super) struct Tree {
    archive: PathBuf,
    nodes: BTreeMap<PathBuf, Node>,
    /// Where a regular file's content is in the archive, and its length.
    contents: BTreeMap<PathBuf, (u64, u64)>,
}

impl Tree {
    /// Reads an archive's entries.
    pub fn open(archive: &Path) -> Result<Tree> {
        let mut tree = Tree { archive: archive.into(), nodes: BTreeMap::new(), contents: BTreeMap::new() };
        tree.read_entries().file("read", archive)?;
        Ok(tree)
    }

    fn read_entries(&mut self) -> io::Result<()> {
        let mut archive = Archive::new(BufReader::new(File::open(&self.archive)?));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let header = entry.header();
            let kind = header.entry_type();
            let (mode, owner) = (header.mode()? & 0o7777, (header.uid()?, header.gid()?));
            let Some(path) = relative(&entry.path()?) else { continue };
            let target = entry.link_name()?.map(|target| target.into_owned());
            let link = match kind {
                EntryType::Link => target.as_deref().and_then(relative),
                _ => target,
            };
            if left_out(&path, kind, link.as_deref()) {
                continue;
            }
            let mut sha256 = None;
            if kind.is_file() {
                let place = (entry.raw_file_position(), entry.size());
                sha256 = Some(cache::sha256_read(&mut entry)?);
                self.contents.insert(path.clone(), place);
            }
            let node = Node { kind, mode, owner, link, sha256 };
            self.nodes.insert(path, node);
        }
        Ok(())
    }

    /// The same without a folder.
    pub fn without(&self, folder: &Path) -> Tree {
        let mut tree = self.clone();
        tree.nodes.retain(|path, _| !path.starts_with(folder));
        tree
    }

    /// The content of a regular file.
    pub fn read(&self, path: &str) -> Result<String> {
        let place = self.contents.get(Path::new(path)).ok_or_else(|| Error::Package {
            package: self.archive.display().to_string(),
            problem: format!("has no file {path}"),
        })?;
        let mut text = String::new();
        self.content(*place)
            .and_then(|mut content| content.read_to_string(&mut text))
            .file("read", &self.archive)?;
        Ok(text)
    }

    /// Writes the layer that makes this tree of the one below it, or of nothing.
    pub fn write(&self, below: Option<&Tree>, out: &Path) -> Result<()> {
        self.write_entries(below, out).file("write", out)
    }

    fn write_entries(&self, below: Option<&Tree>, out: &Path) -> io::Result<()> {
        let mut builder = Builder::new(BufWriter::new(File::create(out)?));
        let changed = self.changed(below);
        // A second name comes after the first one, whatever their order is.
        let second = |change: &Option<&Node>| change.is_some_and(|node| node.kind == EntryType::Link);
        let (names, second_names): (Vec<_>, Vec<_>) = changed.iter().partition(|(_, change)| !second(change));
        for (path, change) in names.into_iter().chain(second_names) {
            match change {
                Some(node) => self.append(&mut builder, path, node, &changed)?,
                None => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    let mut header = header(EntryType::Regular, 0o644, (0, 0), 0);
                    let whiteout = path.with_file_name(format!("{WHITEOUT}{name}"));
                    builder.append_data(&mut header, whiteout, io::empty())?;
                }
            }
        }
        builder.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }

    /// What the layer has to say: nodes of this tree, or that a path of the one below is gone.
    fn changed<'a>(&'a self, below: Option<&'a Tree>) -> BTreeMap<&'a Path, Option<&'a Node>> {
        let old = |path: &Path| below.and_then(|tree| tree.nodes.get(path));
        let mut changed: BTreeMap<&Path, Option<&Node>> = BTreeMap::new();
        for (path, node) in self.nodes.iter().filter(|(path, node)| old(path) != Some(*node)) {
            // Folders above come along, or they would get an owner and a mode by chance.
            for above in path.ancestors().skip(1) {
                if let Some((above, folder)) = self.nodes.get_key_value(above) {
                    changed.insert(above, Some(folder));
                }
            }
            changed.insert(path, Some(node));
        }
        let gone = below.into_iter().flat_map(|tree| tree.nodes.keys());
        for path in gone.filter(|path| !self.nodes.contains_key(*path)) {
            // A whiteout of a folder hides all that is in it.
            if path.parent().is_none_or(|above| above == Path::new("") || self.nodes.contains_key(above)) {
                changed.insert(path, None);
            }
        }
        changed
    }

    fn append(
        &self,
        builder: &mut Builder<impl Write>,
        path: &Path,
        node: &Node,
        layer: &BTreeMap<&Path, Option<&Node>>,
    ) -> io::Result<()> {
        match (node.kind, &node.link) {
            // A layer is complete in itself: a second name of a file below becomes a file.
            (EntryType::Link, Some(target)) if !matches!(layer.get(target.as_path()), Some(Some(_))) => {
                self.append_content(builder, path, node, target)
            }
            (EntryType::Link | EntryType::Symlink, Some(target)) => {
                let mut header = header(node.kind, node.mode, node.owner, 0);
                builder.append_link(&mut header, path, target)
            }
            (EntryType::Directory, _) => {
                let mut header = header(node.kind, node.mode, node.owner, 0);
                builder.append_data(&mut header, path, io::empty())
            }
            (kind, _) if kind.is_file() => self.append_content(builder, path, node, path),
            // Devices and pipes are made when a guest boots.
            _ => Ok(()),
        }
    }

    fn append_content(
        &self,
        builder: &mut Builder<impl Write>,
        path: &Path,
        node: &Node,
        content_of: &Path,
    ) -> io::Result<()> {
        let place = self.contents.get(content_of).ok_or_else(|| {
            let problem = format!("{} links to {}, which is not there", path.display(), content_of.display());
            io::Error::new(io::ErrorKind::InvalidData, problem)
        })?;
        let mut header = header(EntryType::Regular, node.mode, node.owner, place.1);
        builder.append_data(&mut header, path, self.content(*place)?)
    }

    fn content(&self, (offset, bytes): (u64, u64)) -> io::Result<impl Read> {
        let mut file = File::open(&self.archive)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.take(bytes))
    }
}

fn header(kind: EntryType, mode: u32, owner: (u64, u64), bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.0);
    header.set_gid(owner.1);
    header.set_mtime(0);
    header.set_size(bytes);
    header
}

/// `./usr/bin` is `usr/bin`; the root itself is nothing.
fn relative(path: &Path) -> Option<PathBuf> {
    let path: PathBuf =
        path.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
    (path != Path::new("")).then_some(path)
}

fn left_out(path: &Path, kind: EntryType, link: Option<&Path>) -> bool {
    let named = LEFT_OUT.iter().any(|name| match name.strip_suffix('/') {
        Some(folder) => path.starts_with(folder) && path != Path::new(folder) && !kind.is_dir(),
        None => path.starts_with(name),
    });
    named || link == Some(Path::new(OWN_CERTIFICATE))
}

/// Versions by package, of dpkg's `status`.
pub(super) fn packages(status: &str) -> BTreeMap<String, String> {
    let field = |paragraph: &str, name: &str| {
        paragraph.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_string())
    };
    let described = |paragraph: &str| Some((field(paragraph, "Package:")?, field(paragraph, "Version:")?));
    status.split("\n\n").filter_map(described).collect()
}

#[cfg(test)]
#[path = "layer_test.rs"]
mod tests;
