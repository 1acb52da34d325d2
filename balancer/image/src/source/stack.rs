//! Layers on top of each other as one tree.
//!
//! ```text
//!   layer 2   d/ (opaque)   d/z    .wh x          |  what is seen       |  kept, for layers further below
//!   layer 1   d/            d/y    x              |  d/ d/z             |  d/ (opaque)  d/z  .wh x
//! ```
//!
//! What a guest's overlayfs shows of the layers is what the next layer is read against ([`super::grow`]). Where a guest
//! cannot map that many images, the upper layers become one, which keeps whiteouts: they hide what is in the images
//! below it.

use super::grow::{OPAQUE_XATTR, is_overlay_xattr};
use crate::tree::{Inode, InodeId, Kind, Tree, TreeError};
use std::collections::{BTreeMap, HashMap};

/// Where the contents of a file are: a layer, and its inode in the tree of that layer.
pub(super) type Place = (usize, InodeId);

/// One tree of several layers.
#[derive(Debug)]
pub(super) struct Stacked {
    pub tree: Tree,
    /// Of each inode.
    places: Vec<Option<Place>>,
    /// Whiteouts and opaque folders stay.
    keeps: bool,
}

/// True for a whiteout of overlayfs.
pub(super) fn is_whiteout(inode: &Inode) -> bool {
    matches!(inode.kind, Kind::Char(0, 0))
}

fn is_opaque(inode: &Inode) -> bool {
    inode.xattrs.contains_key(OPAQUE_XATTR)
}

impl Stacked {
    /// No layer. With `keeps`, layers further below are hidden by what hides something here.
    pub(super) fn new(keeps: bool) -> Self {
        Self { tree: Tree::new(), places: vec![None], keeps }
    }

    /// Where the contents of a file are.
    pub(super) fn place(&self, id: InodeId) -> Option<Place> {
        self.places[id.index()]
    }

    /// The tree and the places of its files.
    pub(super) fn into_parts(self) -> (Tree, Vec<Option<Place>>) {
        (self.tree, self.places)
    }

    /// The paths of everything but folders.
    pub(super) fn names(&self) -> HashMap<InodeId, Vec<Vec<u8>>> {
        let mut all: HashMap<InodeId, Vec<Vec<u8>>> = HashMap::new();
        let mut folders = vec![(self.tree.root(), Vec::new())];
        while let Some((folder, path)) = folders.pop() {
            let Kind::Directory(names) = &self.tree.get(folder).kind else { continue };
            for (name, &id) in names {
                let below = if path.is_empty() { name.to_vec() } else { [&path, &b"/"[..], name].concat() };
                if self.tree.is_folder(id) {
                    folders.push((id, below));
                } else {
                    all.entry(id).or_default().push(below);
                }
            }
        }
        all
    }

    fn add(&mut self, inode: Inode, place: Option<Place>) -> Result<InodeId, TreeError> {
        let id = self.tree.add(inode)?;
        self.places.push(place);
        Ok(id)
    }

    /// Mode, owner and attributes that a folder has here.
    fn folder(&self, upper: &Inode, names: BTreeMap<Box<[u8]>, InodeId>, opaque: bool) -> Inode {
        let mut inode = upper.with_kind(Kind::Directory(names));
        inode.xattrs.retain(|name, _| !is_overlay_xattr(name));
        if opaque && self.keeps {
            inode.xattrs.insert(OPAQUE_XATTR.to_vec(), b"y".to_vec());
        }
        inode
    }

    /// Puts a layer on top. `places` says where the contents of its files are.
    pub(super) fn put(&mut self, upper: &Tree, places: &[Option<Place>]) -> Result<(), TreeError> {
        let mut known = HashMap::new();
        self.merge(self.tree.root(), upper.get(upper.root()));
        let mut folders = vec![(self.tree.root(), upper.root())];
        while let Some((own, from)) = folders.pop() {
            let Kind::Directory(names) = &upper.get(from).kind else { continue };
            for (name, &id) in names {
                let inode = upper.get(id);
                let before = self.tree.lookup(own, name);
                if is_whiteout(inode) && !self.keeps {
                    self.tree.unlink(own, name);
                } else if !upper.is_folder(id) {
                    let copy = match known.get(&id) {
                        Some(copy) => *copy,
                        None => self.add(inode.clone(), places[id.index()])?,
                    };
                    known.insert(id, copy);
                    self.tree.link(own, name, copy)?;
                } else if let Some(before) = before.filter(|before| self.tree.is_folder(*before)) {
                    self.merge(before, inode);
                    folders.push((before, id));
                } else {
                    let inode = self.folder(inode, BTreeMap::new(), is_opaque(inode) || before.is_some());
                    let copy = self.add(inode, None)?;
                    self.tree.link(own, name, copy)?;
                    folders.push((copy, id));
                }
            }
        }
        Ok(())
    }

    /// A folder of a layer on top of one that is here.
    fn merge(&mut self, own: InodeId, upper: &Inode) {
        let opaque = is_opaque(upper);
        let before = self.tree.get_mut(own);
        let was_opaque = is_opaque(before);
        let mut names = BTreeMap::new();
        if let Kind::Directory(before) = &mut before.kind
            && !opaque
        {
            names = std::mem::take(before);
        }
        *self.tree.get_mut(own) = self.folder(upper, names, opaque || was_opaque);
    }
}
