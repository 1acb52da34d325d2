//! Members of an archive become a tree.
//!
//! | in a layer of an OCI image | in the image, for overlayfs |
//! |---|---|
//! | `a/.wh.name` | a device 0:0 named `a/name`, unless the layer has an `a/name` of its own: a folder becomes opaque |
//! | `a/.wh..wh..opq` | folder `a` with `trusted.overlay.opaque=y` |
//! | either, where the layer's own `a` is not a folder | nothing: all below `a` is hidden (umoci writes such layers) |
//! | `a/.wh.name` where no lower layer has an `a/name` | nothing: overlayfs would list the device |
//! | `a/x` without an `a` | folder `a` as the lower layers have it: mode, owner, attributes |
//! | `a/x` where `a` is a symbolic link of this or a lower layer | `x` in the folder that it leads to |
//! | a hard link to a file of a lower layer | a copy of the file with both names |
//!
//! Of several members with one name the last one counts. A path begins at the root of the image, with a leading slash
//! or without. Hostile archives: no path and no link leads out of the tree, and nothing is ever done on the host's file
//! system by a name of the archive.

use super::archive::Archive;
use super::stack::{Stacked, is_whiteout};
use super::tar::{Member, TarError};
use super::walk::{Spot, Walk, names};
use crate::error::BuildError;
use crate::tree::{Inode, InodeId, Kind, Tree};
use std::collections::{BTreeMap, HashMap, HashSet};
use tar::EntryType;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
pub(super) const OPAQUE_XATTR: &[u8] = b"trusted.overlay.opaque";

/// True for an attribute that is an order to overlayfs.
pub(super) fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.")
}

/// A tree, member by member.
pub(super) struct Growing<'a> {
    archive: &'a Archive,
    pub(super) overlay: bool,
    /// The layers below.
    pub(super) below: &'a Stacked,
    pub(super) tree: Tree,
    /// Folders that show nothing of the layers below.
    pub(super) covered: HashSet<InodeId>,
    /// Folders that no member describes.
    pub(super) inherited: HashSet<InodeId>,
    /// Files of the layers below that this one has a copy of.
    copies: HashMap<InodeId, InodeId>,
    /// The paths of their files, once they are needed.
    known_names: Option<HashMap<InodeId, Vec<Vec<u8>>>>,
}

/// A tree that is complete.
pub(super) struct Grown {
    pub tree: Tree,
    /// Files of the layers below, and their copies here.
    pub copies: HashMap<InodeId, InodeId>,
    /// It changes nothing of the layers below.
    pub is_nothing: bool,
    /// It hides all of the layers below.
    pub is_opaque: bool,
}

impl<'a> Growing<'a> {
    /// With `overlay`, whiteouts are such.
    pub(super) fn new(archive: &'a Archive, overlay: bool, below: &'a Stacked) -> Self {
        let mut tree = Tree::new();
        let root = below.tree.get(below.tree.root());
        *tree.get_mut(tree.root()) = root.with_kind(Kind::Directory(BTreeMap::new()));
        let inherited = HashSet::from([tree.root()]);
        let (covered, copies) = (HashSet::new(), HashMap::new());
        Self { archive, overlay, below, tree, covered, inherited, copies, known_names: None }
    }

    pub(super) fn refuse<T>(&self, path: &[u8], why: impl Into<String>) -> Result<T, BuildError> {
        Err(self.archive.refuse(TarError::member(path, why)))
    }

    pub(super) fn is_whiteout(&self, id: InodeId) -> bool {
        self.overlay && is_whiteout(self.tree.get(id))
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
            return self.refuse(&path, "it has no name, and only a folder can be the root");
        };
        if self.overlay && name.starts_with(WHITEOUT) {
            self.hide(&path, parents, name)?;
            return Ok(None);
        }
        let (at, folder) = self.folder(&path, parents)?;
        let before = self.tree.lookup(folder, name);
        if member.kind.is_dir() {
            self.put_folder(at, folder, name, member)?;
            return Ok(None);
        }
        if member.kind.is_hard_link() {
            let id = self.target(&path, &member.link)?;
            self.tree.link(folder, name, id)?;
            return Ok(None);
        }
        let Some(kind) = kind(&member) else {
            let sign = char::from(member.kind.as_byte());
            return self.refuse(&path, format!("type {sign:?} is not known: pack it with GNU tar"));
        };
        let id = self.tree.add(Inode::new(member.mode, kind))?;
        self.describe(id, member);
        if let Some(before) = before {
            self.inherited.remove(&before);
        }
        self.tree.link(folder, name, id)?;
        Ok(Some(id))
    }

    /// A member that is a folder. It becomes one with a folder that is there; what else has its name goes.
    fn put_folder(
        &mut self,
        at: Spot,
        folder: InodeId,
        name: &[u8],
        member: Member,
    ) -> Result<(), BuildError> {
        let before = self.tree.lookup(folder, name);
        if let Some(id) = before.filter(|id| self.tree.is_folder(*id)) {
            self.describe(id, member);
            return Ok(());
        }
        let id = self.tree.add(Inode::folder())?;
        self.describe(id, member);
        self.tree.link(folder, name, id)?;
        // A member before it, or a whiteout, has replaced a folder of the layers below.
        let hides = at.below.and_then(|below| self.below.tree.lookup(below, name)).is_some();
        if before.is_some() && hides {
            self.covered.insert(id);
        }
        Ok(())
    }

    /// The target of a hard link: an earlier member, or a file of the layers below, which gets a copy here.
    fn target(&mut self, path: &[u8], link: &[u8]) -> Result<InodeId, BuildError> {
        let shown = String::from_utf8_lossy(link).into_owned();
        let Ok(names) = names(link) else {
            return self.refuse(path, format!("it is a hard link to {shown:?}, which leads out of the tree"));
        };
        let folder = || format!("it is a hard link to the folder {shown:?}");
        let Some((name, parents)) = names.split_last() else { return self.refuse(path, folder()) };
        let at = self.walk(path, parents, Walk::Find)?;
        let own = at.and_then(|at| self.tree.lookup(at.layer?, name));
        let below = at.and_then(|at| self.below.tree.lookup(at.below?, name)).filter(|_| own.is_none());
        match (own.filter(|id| !self.is_whiteout(*id)), below) {
            (Some(id), _) if self.tree.is_folder(id) => self.refuse(path, folder()),
            (Some(id), _) => Ok(id),
            (None, Some(id)) if self.below.tree.is_folder(id) => self.refuse(path, folder()),
            (None, Some(id)) => self.copy(path, id),
            (None, None) => {
                self.refuse(path, format!("it is a hard link to {shown:?}, which is not before it"))
            }
        }
    }

    /// A copy of a file of the layers below, with all names that are still seen of it.
    fn copy(&mut self, path: &[u8], id: InodeId) -> Result<InodeId, BuildError> {
        if let Some(copy) = self.copies.get(&id) {
            return Ok(*copy);
        }
        let copy = self.tree.add(self.below.tree.get(id).clone())?;
        self.copies.insert(id, copy);
        let below = self.below;
        let known = self.known_names.get_or_insert_with(|| below.names());
        for names in known.get(&id).cloned().unwrap_or_default() {
            let names: Vec<&[u8]> = names.split(|byte| *byte == b'/').collect();
            let Some((name, parents)) = names.split_last() else { continue };
            let at = self.walk(path, parents, Walk::Find)?;
            let seen = at.and_then(|at| self.below.tree.lookup(at.below?, name));
            let own = at.and_then(|at| self.tree.lookup(at.layer?, name));
            if seen == Some(id) && own.is_none() {
                let (_, folder) = self.folder(path, parents)?;
                self.tree.link(folder, name, copy)?;
            }
        }
        Ok(copy)
    }

    /// Mode, owner and attributes of a member.
    fn describe(&mut self, id: InodeId, member: Member) {
        self.inherited.remove(&id);
        let inode = self.tree.get_mut(id);
        (inode.mode, inode.uid, inode.gid, inode.xattrs) =
            (member.mode, member.uid, member.gid, member.xattrs);
        if self.overlay {
            // A layer says by whiteouts what it hides; in the guest these names would be orders to overlayfs.
            inode.xattrs.retain(|name, _| !is_overlay_xattr(name));
        }
    }

    /// A whiteout: it hides what the layers below have, wherever in the archive it is.
    fn hide(&mut self, path: &[u8], parents: &[&[u8]], name: &[u8]) -> Result<(), BuildError> {
        let hidden = &name[WHITEOUT.len()..];
        if name == OPAQUE {
            if let Some(folder) = self.walk(path, parents, Walk::Hide)?.and_then(|at| at.layer) {
                self.covered.insert(folder);
            }
            return Ok(());
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return self.refuse(path, "it is a whiteout of nothing");
        }
        // The rest are marks of aufs (".wh..wh.plnk"), no part of the tree.
        if hidden.starts_with(WHITEOUT) {
            return Ok(());
        }
        let found = self.walk(path, parents, Walk::Find)?;
        if found.and_then(|at| self.below.tree.lookup(at.below?, hidden)).is_none() {
            return Ok(());
        }
        let Some(folder) = self.walk(path, parents, Walk::Hide)?.and_then(|at| at.layer) else {
            return Ok(());
        };
        match self.tree.lookup(folder, hidden) {
            Some(id) if self.tree.is_folder(id) && !self.is_bare(id) => {
                self.covered.insert(id);
                if self.inherited.contains(&id) {
                    // What it would have inherited is hidden.
                    let inode = self.tree.get_mut(id);
                    let kind = std::mem::replace(&mut inode.kind, Kind::Fifo);
                    *inode = Inode::folder().with_kind(kind);
                }
            }
            Some(id) if !self.tree.is_folder(id) => {}
            _ => {
                let id = self.tree.add(Inode::new(0, Kind::Char(0, 0)))?;
                self.tree.link(folder, hidden, id)?;
            }
        }
        Ok(())
    }

    /// True for a folder that is in the layer for whiteouts only.
    fn is_bare(&self, id: InodeId) -> bool {
        let mut waiting = vec![id];
        while let Some(id) = waiting.pop() {
            match &self.tree.get(id).kind {
                Kind::Directory(names) if self.inherited.contains(&id) && !self.covered.contains(&id) => {
                    waiting.extend(names.values());
                }
                _ if self.is_whiteout(id) => {}
                _ => return false,
            }
        }
        true
    }

    /// The tree.
    pub(super) fn finish(mut self) -> Grown {
        let root = self.tree.root();
        // Overlayfs does not look whether a root is opaque: the images below are left out instead.
        let is_opaque = self.covered.remove(&root);
        if self.overlay {
            for id in &self.covered {
                self.tree.get_mut(*id).xattrs.insert(OPAQUE_XATTR.to_vec(), b"y".to_vec());
            }
        }
        let own = self.tree.get(root);
        let is_empty = matches!(&own.kind, Kind::Directory(names) if names.is_empty());
        let below = self.below.tree.get(self.below.tree.root());
        let is_same = *own == below.with_kind(Kind::Directory(BTreeMap::new()));
        let is_nothing = is_empty && is_same && !is_opaque;
        Grown { tree: self.tree, copies: self.copies, is_nothing, is_opaque }
    }
}

fn kind(member: &Member) -> Option<Kind> {
    let (major, minor) = member.device;
    Some(match member.kind {
        EntryType::Regular | EntryType::Continuous => Kind::Regular(member.bytes),
        EntryType::Symlink => Kind::Symlink(member.link.clone()),
        EntryType::Char => Kind::Char(major, minor),
        EntryType::Block => Kind::Block(major, minor),
        EntryType::Fifo => Kind::Fifo,
        _ => return None,
    })
}
