//! A folder.
//!
//! Other processes may write into it while it is read. No path is followed through a symbolic link or out of the folder
//! (`openat2`), so no foreign file can be smuggled in. A file that was written to meanwhile is an error: a mixture of
//! two versions is not a version.

use super::{Origin, Sink, Source};
use crate::error::BuildError;
use crate::tree::{Inode, InodeId, Kind, Traversal, Tree, is_kept, shown};
use crate::watch::Watch;
use rustix::fs::{AtFlags, Dir as Listing, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Longest list of names of attributes, and longest value, of one inode (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX` of Linux).
const XATTR_BYTES_MAX: usize = 65536;

/// Attributes that show that a file is the same one, unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: i64,
    modified: (i64, u64),
}

/// An open folder.
#[derive(Debug)]
pub struct Dir {
    path: PathBuf,
    root: OwnedFd,
    stamps: HashMap<InodeId, Stamp>,
}

impl Dir {
    /// Opens a folder.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn open(path: &Path) -> Result<Self, BuildError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|error| BuildError::Read { path: path.display().to_string(), source: error.into() })?;
        Ok(Self { path: path.into(), root, stamps: HashMap::new() })
    }

    /// Opens a path relative to the folder.
    fn at(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, BuildError> {
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let name = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(
            &self.root,
            name,
            flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            inside,
        )
        .map_err(|error| self.failed(path, error))
    }

    fn failed(&self, path: &[u8], error: Errno) -> BuildError {
        BuildError::Read { path: self.full(path), source: error.into() }
    }

    fn full(&self, path: &[u8]) -> String {
        let path = if path.is_empty() { String::new() } else { shown(path) };
        format!("{}{path}", self.path.display())
    }

    /// An inode, and for a folder how its names are read.
    fn inode(&self, fd: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<Inode, BuildError> {
        let failed = |error| self.failed(path, error);
        // The kernel never gives a negative length.
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory(BTreeMap::new()),
            FileType::RegularFile => Kind::Regular(bytes),
            FileType::Symlink => {
                Kind::Symlink(rustix::fs::readlinkat(fd, "", Vec::new()).map_err(failed)?.into_bytes())
            }
            FileType::CharacterDevice => Kind::Char(major, minor),
            FileType::BlockDevice => Kind::Block(major, minor),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::Unknown => return Err(failed(Errno::NOTSUP)),
        };
        let mut inode = Inode::new((stat.st_mode & 0o7777) as u16, kind);
        (inode.uid, inode.gid) = (stat.st_uid, stat.st_gid);
        inode.xattrs = xattrs(fd).map_err(failed)?;
        Ok(inode)
    }

    fn names(&self, path: &[u8]) -> Result<Vec<CString>, BuildError> {
        let fd = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let list = Listing::new(fd).map_err(|error| self.failed(path, error))?;
        let mut names = Vec::new();
        for entry in list {
            let name = entry.map_err(|error| self.failed(path, error))?.file_name().to_owned();
            if name.to_bytes() != b"." && name.to_bytes() != b".." {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl Source for Dir {
    fn origin(&self) -> Origin {
        Origin { name: self.path.display().to_string(), layer: None }
    }

    fn tree(&mut self, watch: &mut Watch<'_>) -> Result<Tree, BuildError> {
        let mut tree = Tree::new();
        let mut known = HashMap::new();
        let stat = rustix::fs::fstat(&self.root).map_err(|error| self.failed(b"", error))?;
        *tree.get_mut(tree.root()) = self.inode(&self.root, &stat, b"")?;
        let mut folders = vec![(tree.root(), Vec::new())];
        while let Some((folder, path)) = folders.pop() {
            for name in self.names(&path)? {
                let mut below = path.clone();
                if !below.is_empty() {
                    below.push(b'/');
                }
                below.extend(name.to_bytes());
                let fd = self.at(&below, OFlags::PATH)?;
                let stat = rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH)
                    .map_err(|error| self.failed(&below, error))?;
                let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                // What has one name only needs no memory.
                let shared = !is_folder && stat.st_nlink > 1;
                let identity = (stat.st_dev, stat.st_ino);
                let id = match known.get(&identity).copied().filter(|_| shared) {
                    Some(id) => id,
                    None => {
                        let id = tree.add(self.inode(&fd, &stat, &below)?)?;
                        self.stamps.insert(id, stamp(&stat));
                        id
                    }
                };
                if shared {
                    known.insert(identity, id);
                }
                tree.link(folder, name.to_bytes(), id)?;
                if is_folder {
                    folders.push((id, below));
                }
                watch.step(1, 0)?;
            }
        }
        Ok(tree)
    }

    fn contents(
        &mut self,
        tree: &Tree,
        traversal: &Traversal<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), BuildError> {
        for id in &traversal.inodes {
            if !matches!(tree.get(*id).kind, Kind::Regular(_)) {
                continue;
            }
            let path = traversal.path(*id);
            // Were it replaced by a pipe meanwhile, opening must not wait for a writer.
            let file = File::from(self.at(&path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
            let unchanged = |file: &File| {
                let stat = rustix::fs::fstat(file).map_err(|error| self.failed(&path, error))?;
                let now = stamp(&stat);
                if self.stamps.get(id) == Some(&now) {
                    return Ok(());
                }
                let what = match self.stamps.get(id) {
                    Some(before) if before.bytes != now.bytes => {
                        format!("it had {} bytes and has {}", before.bytes, now.bytes)
                    }
                    _ => "it was written to or replaced".into(),
                };
                Err(BuildError::Changed { path: self.full(&path), what })
            };
            unchanged(&file)?;
            // If it changed while it was read, that is the better explanation of whatever went wrong.
            let result = sink(*id, &mut crate::sparse::Reader::new(&file));
            unchanged(&file)?;
            result.map_err(|error| match error {
                BuildError::Read { source, .. } => BuildError::Read { path: self.full(&path), source },
                other => other,
            })?;
        }
        Ok(())
    }
}

fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        device: stat.st_dev,
        inode: stat.st_ino,
        bytes: stat.st_size,
        modified: (stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// The attributes that are a part of the tree. An `O_PATH` descriptor has none for `fgetxattr`; its name in `/proc`
/// leads to the inode itself, a symbolic link too.
fn xattrs(fd: &OwnedFd) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let mut kept = BTreeMap::new();
    let mut names = vec![0; XATTR_BYTES_MAX];
    let count = match rustix::fs::listxattr(&path, &mut names[..]) {
        // Not every file system has them.
        Err(Errno::NOTSUP) => return Ok(kept),
        result => result?,
    };
    let mut value = Vec::new();
    for name in names[..count].split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        value.resize(XATTR_BYTES_MAX, 0);
        let bytes = rustix::fs::getxattr(&path, name, &mut value[..])?;
        kept.insert(name.to_vec(), value[..bytes].to_vec());
    }
    Ok(kept)
}
