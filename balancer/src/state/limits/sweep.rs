//! Transient containers go when nothing needs them any more.

use crate::state::{State, StateError};
use crate::tree::Tree;
use protocol::path::ContainerPath;

impl State {
    /// Commits a tree to the journal and makes it the tree.
    pub(in crate::state) fn adopt(&mut self, next: Tree) -> Result<(), StateError> {
        for gone in self.containers.adopt(next)? {
            self.pool.images.remove(gone);
        }
        Ok(())
    }

    /// Removes a container and those above it that nothing needs any more.
    pub(in crate::state) fn sweep(&mut self, from: &ContainerPath) {
        let tree = self.containers.tree();
        let mut next = tree.clone();
        // A container that is still charged for frames is needed as well.
        let is_needed = |path: &ContainerPath| {
            let owner = tree.get(path).map(|node| node.owner);
            self.containers.bindings().iter().any(|(_, payer)| payer == path)
                || self.guests.by_seq().any(|guest| {
                    guest.about.container == *path || owner.is_some_and(|owner| guest.owners.contains(&owner))
                })
        };
        let removed = next.sweep(from, is_needed);
        if removed.is_empty() {
            return;
        }
        match self.adopt(next) {
            Ok(()) => {
                for path in removed {
                    self.events.push("container_removed", None, Some(&path), "Nothing is inside it any more");
                }
            }
            // It stays, empty, and goes with the sweep after the next start.
            Err(error) => tracing::error!(error = %error.chain(), "an empty container could not be removed"),
        }
    }

    /// Sweeps all containers, the deepest first.
    pub(in crate::state) fn sweep_all(&mut self) {
        let paths: Vec<ContainerPath> =
            self.containers.tree().iter().map(|(path, _)| path.clone()).rev().collect();
        paths.iter().for_each(|path| self.sweep(path));
    }

    /// Sweeps containers with these owner ids.
    pub(in crate::state) fn sweep_owners(&mut self, owners: &[u16]) {
        let tree = self.containers.tree();
        let named = tree.iter().filter(|(_, node)| node.transient && owners.contains(&node.owner));
        let paths: Vec<ContainerPath> = named.map(|(path, _)| path.clone()).collect();
        paths.iter().for_each(|path| self.sweep(path));
    }
}
