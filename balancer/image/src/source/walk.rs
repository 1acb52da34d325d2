//! Paths inside an archive, and where they lead in the layer and in the layers below it.

use super::grow::Growing;
use super::tar::TarError;
use crate::error::BuildError;
use crate::tree::{Inode, InodeId, Kind};
use std::collections::BTreeMap;

/// Most symbolic links on a path (`MAXSYMLINKS` of Linux).
const LINKS_MAX: usize = 40;

/// A folder: of the layer, of the layers below, or one on top of the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    pub layer: Option<InodeId>,
    /// What is seen of the layers below; none if the layer's own hides it.
    pub below: Option<InodeId>,
}

/// What to do with folders that the layer does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    /// Make them; a path through something else is an error.
    Make,
    /// Make them; a path through something else leads nowhere, and so does one through a whiteout.
    Hide,
    /// Make nothing; a path that does not exist leads nowhere.
    Find,
}

/// What is found behind a name.
enum Step {
    Folder(Spot),
    Link(Vec<u8>),
    /// A folder of the layers below.
    Below(InodeId),
    /// Nothing, or something of the layers below that a folder may hide.
    Nothing,
    Whiteout,
    /// Something of the layer that is not a folder.
    Other,
}

/// The names on a path inside the archive. A leading slash is the root of the image; `..` is resolved by the names
/// alone, as Docker does, and must not lead out of the image.
pub(super) fn names(path: &[u8]) -> Result<Vec<&[u8]>, TarError> {
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if names.pop().is_none() => {
                return Err(TarError::member(path, "its path has \"..\" that leads out of the image"));
            }
            b".." => {}
            _ => names.push(name),
        }
    }
    Ok(names)
}

impl Growing<'_> {
    /// The folder that the parents of a member lead to, which the layer has or gets.
    pub(super) fn folder(&mut self, path: &[u8], parents: &[&[u8]]) -> Result<(Spot, InodeId), BuildError> {
        let found = self.walk(path, parents, Walk::Make)?;
        match found.and_then(|at| Some((at, at.layer?))) {
            Some(found) => Ok(found),
            None => self.refuse(path, "its folder cannot be made"),
        }
    }

    /// Where names lead from the root. Symbolic links are followed inside the tree, whose root is their root.
    pub(super) fn walk(
        &mut self,
        path: &[u8],
        names: &[&[u8]],
        how: Walk,
    ) -> Result<Option<Spot>, BuildError> {
        let root = self.tree.root();
        let below = Some(self.below.tree.root()).filter(|_| !self.covered.contains(&root));
        let mut trail = vec![Spot { layer: Some(root), below }];
        let mut waiting: Vec<Vec<u8>> = names.iter().rev().map(|name| name.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = waiting.pop() {
            if name.is_empty() || name == b"." {
                continue;
            }
            if name == b".." {
                trail.truncate((trail.len() - 1).max(1));
                continue;
            }
            let at = trail[trail.len() - 1];
            let next = match (self.step(at, &name), how) {
                (Step::Folder(spot), _) => spot,
                (Step::Link(target), _) => {
                    links += 1;
                    if links > LINKS_MAX {
                        let why = format!("its path leads through more than {LINKS_MAX} symbolic links");
                        return self.refuse(path, why);
                    }
                    if target.starts_with(b"/") {
                        trail.truncate(1);
                    }
                    waiting.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                    continue;
                }
                (Step::Below(id), Walk::Find) => Spot { layer: None, below: Some(id) },
                (Step::Below(id), _) => self.make(at, &name, Some(id))?,
                (Step::Nothing, Walk::Make | Walk::Hide) => self.make(at, &name, None)?,
                (Step::Whiteout, Walk::Make) => {
                    let spot = self.make(at, &name, None)?;
                    self.covered.extend(spot.layer);
                    spot
                }
                (Step::Other, Walk::Make) => {
                    let name = String::from_utf8_lossy(&name).into_owned();
                    let why = format!("its path leads through {name:?}, which is no folder");
                    return self.refuse(path, why);
                }
                (Step::Nothing | Step::Whiteout | Step::Other, _) => return Ok(None),
            };
            trail.push(next);
        }
        Ok(trail.pop())
    }

    fn step(&self, at: Spot, name: &[u8]) -> Step {
        let below = at.below.and_then(|below| self.below.tree.lookup(below, name));
        if let Some(id) = at.layer.and_then(|layer| self.tree.lookup(layer, name)) {
            return match &self.tree.get(id).kind {
                Kind::Directory(_) => {
                    let below = below.filter(|below| self.below.tree.is_folder(*below));
                    Step::Folder(Spot {
                        layer: Some(id),
                        below: below.filter(|_| !self.covered.contains(&id)),
                    })
                }
                Kind::Symlink(target) => Step::Link(target.clone()),
                _ if self.is_whiteout(id) => Step::Whiteout,
                _ => Step::Other,
            };
        }
        match below.map(|id| (id, &self.below.tree.get(id).kind)) {
            Some((id, Kind::Directory(_))) => Step::Below(id),
            Some((_, Kind::Symlink(target))) => Step::Link(target.clone()),
            _ => Step::Nothing,
        }
    }

    /// Makes a folder that no member describes: as the layers below have it.
    fn make(&mut self, at: Spot, name: &[u8], below: Option<InodeId>) -> Result<Spot, BuildError> {
        let inode = match below {
            Some(id) => self.below.tree.get(id).with_kind(Kind::Directory(BTreeMap::new())),
            None => Inode::folder(),
        };
        let id = self.tree.add(inode)?;
        if let Some(layer) = at.layer {
            self.tree.link(layer, name, id)?;
        }
        self.inherited.insert(id);
        Ok(Spot { layer: Some(id), below })
    }
}
