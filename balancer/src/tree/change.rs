//! Changes of the tree.

use super::{CONTAINERS_MAX, Node, OWNER_ROOT, Tree, TreeError};
use protocol::limits::{Limits, LimitsPatch};
use protocol::path::ContainerPath;

/// What a PUT did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The container is new.
    Created,
    /// It was there and has the new limits.
    Replaced,
}

impl Tree {
    /// Makes a container with these limits or gives them to the one that is there; it stays until it is removed. No
    /// bound is checked: [`Tree::broken`] does that.
    ///
    /// # Errors
    /// When no owner id is left.
    pub fn place(&mut self, path: &ContainerPath, limits: Limits) -> Result<Put, TreeError> {
        let done = if self.nodes.contains_key(path) { Put::Replaced } else { Put::Created };
        self.ensure(path)?;
        let node = self.nodes.get_mut(path).expect("ensured above");
        node.limits = limits;
        node.transient = false;
        Ok(done)
    }

    /// Changes limits of a container. No bound is checked: [`Tree::broken`] does that.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn alter(&mut self, path: &ContainerPath, patch: &LimitsPatch) -> Result<(), TreeError> {
        let node = self.nodes.get_mut(path).ok_or_else(|| TreeError::Missing(path.clone()))?;
        node.limits = node.limits.patched(patch);
        Ok(())
    }

    /// Makes a container and those above it where they are missing, all transient. True if anything was made.
    ///
    /// # Errors
    /// When no owner id is left.
    pub fn ensure(&mut self, path: &ContainerPath) -> Result<bool, TreeError> {
        let missing: Vec<ContainerPath> =
            path.ancestors().filter(|above| !self.nodes.contains_key(above)).collect();
        for above in missing.iter().rev() {
            let owner = self.free_owner()?;
            self.nodes.insert(above.clone(), Node { limits: Limits::default(), transient: true, owner });
        }
        Ok(!missing.is_empty())
    }

    /// Removes a container. `guests` are the guests directly in it.
    ///
    /// # Errors
    /// When it is the root, missing, or holds guests or containers.
    pub fn remove(&mut self, path: &ContainerPath, guests: usize) -> Result<(), TreeError> {
        if path.is_root() {
            return Err(TreeError::Root);
        }
        if !self.nodes.contains_key(path) {
            return Err(TreeError::Missing(path.clone()));
        }
        let children = self.children(path).count();
        if guests + children > 0 {
            let inside = format!("{guests} guests and {children} containers");
            return Err(TreeError::Busy { path: path.clone(), inside });
        }
        self.nodes.remove(path);
        Ok(())
    }

    /// Removes a container and those above it as long as they are transient and nothing is inside them.
    /// `has_guests` says whether a container holds guests directly. Returns what was removed.
    pub fn sweep(
        &mut self,
        from: &ContainerPath,
        has_guests: impl Fn(&ContainerPath) -> bool,
    ) -> Vec<ContainerPath> {
        let mut removed = Vec::new();
        for path in from.ancestors() {
            let transient = self.nodes.get(&path).is_some_and(|node| node.transient);
            if !transient || has_guests(&path) || self.children(&path).next().is_some() {
                break;
            }
            self.nodes.remove(&path);
            removed.push(path);
        }
        removed
    }

    fn free_owner(&mut self) -> Result<u16, TreeError> {
        if self.nodes.len() >= CONTAINERS_MAX {
            return Err(TreeError::Full);
        }
        let used: std::collections::BTreeSet<u16> = self.nodes.values().map(|node| node.owner).collect();
        let free =
            (self.owner_next..=u16::MAX).chain(OWNER_ROOT + 1..=u16::MAX).find(|id| !used.contains(id));
        let owner = free.ok_or(TreeError::Full)?;
        self.owner_next = owner.checked_add(1).unwrap_or(OWNER_ROOT + 1);
        Ok(owner)
    }
}
