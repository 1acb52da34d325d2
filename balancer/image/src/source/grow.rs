//! Members of an archive become a tree.
//!
//! | in a layer of an OCI image | in the image, for overlayfs |
//! |---|---|
//! | `a/.wh.name` | a device 0:0 named `a/name`, unless the layer has an `a/name` of its own: a folder becomes opaque |
//! | `a/.wh..wh..opq` | folder `a` with `trusted.overlay.opaque=y` |
//! | either, where the layer's own `a` is not a folder | nothing: all below `a` is hidden (umoci writes such layers) |
//!
//! Hostile archives: no path leads out of the tree, through a symbolic link, or through a file. Nothing is ever done on
//! the host's file system by a name of the archive.

use super::archive::Archive;
use super::tar::{Member, TarError};
use crate::error::BuildError;
use crate::tree::{Inode, InodeId, Kind, Tree};
use std::collections::BTreeMap;
use tar::EntryType;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const OPAQUE_XATTR: &[u8] = b"trusted.overlay.opaque";

/// What a whiteout hides in the layers below: the entry of this name in the folder of this path, or the whole folder.
struct Hidden {
    folder: Vec<u8>,
    name: Option<Vec<u8>>,
}

/// A tree, member by member.
pub(super) struct Growing<'a> {
    archive: &'a Archive,
    overlay: bool,
    tree: Tree,
    hidden: Vec<Hidden>,
}

impl<'a> Growing<'a> {
    /// With `overlay`, whiteouts are such.
    pub(super) fn new(archive: &'a Archive, overlay: bool) -> Self {
        Self { archive, overlay, tree: Tree::new(), hidden: Vec::new() }
    }

    fn refuse<T>(&self, path: &[u8], why: impl Into<String>) -> Result<T, BuildError> {
        Err(self.archive.refuse(TarError::member(path, why)))
    }

    /// The folder that the parents of a member lead to, made if no member describes it.
    fn folder(&mut self, path: &[u8], parents: &[&[u8]]) -> Result<InodeId, BuildError> {
        let mut folder = self.tree.root();
        for name in parents {
            let Some(id) = self.tree.lookup(folder, name) else {
                let id = self.tree.add(Inode::folder())?;
                self.tree.link(folder, name, id)?;
                folder = id;
                continue;
            };
            let name = String::from_utf8_lossy(name);
            match self.tree.get(id).kind {
                Kind::Directory(_) => folder = id,
                Kind::Symlink(_) => {
                    return self.refuse(path, format!("its path leads through the symbolic link {name:?}"));
                }
                _ => {
                    return self.refuse(path, format!("its path leads through {name:?}, which is no folder"));
                }
            }
        }
        Ok(folder)
    }

    /// Puts a member into the tree. Returns its inode, if it is a new one.
    pub(super) fn add(&mut self, member: Member) -> Result<Option<InodeId>, BuildError> {
        let path = member.path.clone();
        let names = names(&path).map_err(|error| self.archive.refuse(error))?;
        let Some((name, parents)) = names.split_last() else {
            if member.kind.is_dir() {
                self.describe(self.tree.root(), member);
                return Ok(None);
            }
            return self.refuse(&path, "it has no name");
        };
        if self.overlay && name.starts_with(WHITEOUT) {
            return self.whiteout(&path, parents, name);
        }
        let folder = self.folder(&path, parents)?;
        let before = self.tree.lookup(folder, name);
        if let Some(id) = before.filter(|id| matches!(self.tree.get(*id).kind, Kind::Directory(_))) {
            if !member.kind.is_dir() {
                return self.refuse(&path, "a member before it is a folder of that name");
            }
            self.describe(id, member);
            return Ok(None);
        }
        if member.kind.is_hard_link() {
            let id = self.target(&path, &member.link)?;
            self.tree.link(folder, name, id)?;
            return Ok(None);
        }
        let Some(kind) = kind(&member) else {
            return self.refuse(&path, format!("type {:?} is not known", char::from(member.kind.as_byte())));
        };
        let id = self.tree.add(Inode::new(member.mode, kind))?;
        self.describe(id, member);
        self.tree.link(folder, name, id)?;
        Ok(Some(id))
    }

    /// The target of a hard link: an earlier member.
    fn target(&self, path: &[u8], link: &[u8]) -> Result<InodeId, BuildError> {
        let shown = String::from_utf8_lossy(link);
        let Ok(names) = names(link) else {
            return self.refuse(path, format!("it is a hard link to {shown:?}, which leads out of the tree"));
        };
        let mut id = self.tree.root();
        for name in names {
            let Some(below) = self.tree.lookup(id, name) else {
                return self.refuse(path, format!("it is a hard link to {shown:?}, which is not before it"));
            };
            id = below;
        }
        if matches!(self.tree.get(id).kind, Kind::Directory(_)) {
            return self.refuse(path, format!("it is a hard link to the folder {shown:?}"));
        }
        Ok(id)
    }

    /// Mode, owner and attributes of a member.
    fn describe(&mut self, id: InodeId, member: Member) {
        let inode = self.tree.get_mut(id);
        (inode.mode, inode.uid, inode.gid, inode.xattrs) =
            (member.mode, member.uid, member.gid, member.xattrs);
        if self.overlay {
            // A layer says by whiteouts what it hides; in the guest these names would be orders to overlayfs.
            inode.xattrs.retain(|name, _| !name.starts_with(b"trusted.overlay."));
        }
    }

    /// Keeps a whiteout for [`Growing::finish`].
    fn whiteout(
        &mut self,
        path: &[u8],
        parents: &[&[u8]],
        name: &[u8],
    ) -> Result<Option<InodeId>, BuildError> {
        let folder = parents.join(&b'/');
        let hidden = &name[WHITEOUT.len()..];
        if name == OPAQUE {
            self.hidden.push(Hidden { folder, name: None });
        } else if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return self.refuse(path, "it is a whiteout of nothing");
        } else if !hidden.starts_with(WHITEOUT) {
            self.hidden.push(Hidden { folder, name: Some(hidden.to_vec()) });
        }
        // The rest are marks of aufs (".wh..wh.plnk"), no part of the tree.
        Ok(None)
    }

    /// The tree. Whiteouts are applied last: they mean the layers below, wherever in the archive they are.
    pub(super) fn finish(mut self) -> Result<Tree, BuildError> {
        let mut hidden = std::mem::take(&mut self.hidden);
        // A folder that is hidden as a whole hides what is said of its contents.
        hidden.sort_by_key(|hidden| names(&hidden.folder).map_or(0, |names| names.len()));
        for Hidden { folder: path, name } in hidden {
            let parents = names(&path).map_err(|error| self.archive.refuse(error))?;
            if self.is_covered(&parents) {
                continue;
            }
            let mut folder = self.folder(&path, &parents)?;
            if let Some(name) = name {
                match self.tree.lookup(folder, &name) {
                    Some(id) if matches!(self.tree.get(id).kind, Kind::Directory(_)) => folder = id,
                    Some(_) => continue,
                    None => {
                        let id = self.tree.add(Inode::new(0, Kind::Char(0, 0)))?;
                        self.tree.link(folder, &name, id)?;
                        continue;
                    }
                }
            }
            self.tree.get_mut(folder).xattrs.insert(OPAQUE_XATTR.to_vec(), b"y".to_vec());
        }
        Ok(self.tree)
    }

    /// True if an entry on this path is not a folder: it hides the layers below in any case.
    fn is_covered(&self, names: &[&[u8]]) -> bool {
        let mut folder = self.tree.root();
        for name in names {
            match self.tree.lookup(folder, name) {
                Some(id) if matches!(self.tree.get(id).kind, Kind::Directory(_)) => folder = id,
                found => return found.is_some(),
            }
        }
        false
    }
}

fn kind(member: &Member) -> Option<Kind> {
    let (major, minor) = member.device;
    Some(match member.kind {
        EntryType::Regular | EntryType::Continuous => Kind::Regular(member.bytes),
        EntryType::Directory => Kind::Directory(BTreeMap::new()),
        EntryType::Symlink => Kind::Symlink(member.link.clone()),
        EntryType::Char => Kind::Char(major, minor),
        EntryType::Block => Kind::Block(major, minor),
        EntryType::Fifo => Kind::Fifo,
        _ => return None,
    })
}

/// The names on a path inside the archive.
fn names(path: &[u8]) -> Result<Vec<&[u8]>, TarError> {
    if path.starts_with(b"/") {
        return Err(TarError::member(path, "its path is absolute"));
    }
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    let names: Vec<&[u8]> = names.collect();
    if names.contains(&b"..".as_slice()) {
        return Err(TarError::member(path, "its path has \"..\""));
    }
    Ok(names)
}
