//! The containers, the bindings of images to them, and the journal that holds both on disk.
//!
//! A change is made on a copy, committed to the journal, and only then becomes the state: this is the one effect that
//! happens under the lock, since the order of the commits must be the order of the changes.

use crate::guests::Guest;
use crate::journal::{Journal, JournalError};
use crate::pool::Bindings;
use crate::tree::Tree;
use accounting::ContainerId;
use policy::Knobs;
use protocol::path::ContainerPath;

#[derive(Debug)]
pub(in crate::state) struct Containers {
    journal: Journal,
    tree: Tree,
    bindings: Bindings,
}

impl Containers {
    pub(in crate::state) fn new(journal: Journal, tree: Tree, bindings: Bindings) -> Self {
        Self { journal, tree, bindings }
    }

    pub(in crate::state) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(in crate::state) fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    /// Commits a tree to the journal and makes it the tree. Returns the containers that it has no longer.
    ///
    /// # Errors
    /// When the journal cannot be written: then the tree is as it was.
    pub(in crate::state) fn adopt(&mut self, next: Tree) -> Result<Vec<ContainerId>, JournalError> {
        if next == self.tree {
            return Ok(vec![]);
        }
        self.journal.commit(&self.tree, &next)?;
        let before = std::mem::replace(&mut self.tree, next);
        let gone = before.iter().filter(|(path, _)| self.tree.get(path).is_none());
        Ok(gone.map(|(_, node)| ContainerId(node.owner)).collect())
    }

    /// Commits bindings to the journal and makes them the bindings. True if they are others than before.
    ///
    /// # Errors
    /// When the journal cannot be written: then the bindings are as they were.
    pub(in crate::state) fn adopt_bindings(&mut self, next: Bindings) -> Result<bool, JournalError> {
        if next == self.bindings {
            return Ok(false);
        }
        self.journal.commit_bindings(&self.bindings, &next)?;
        self.bindings = next;
        Ok(true)
    }

    /// Puts bindings in place without a commit, for a preview, and returns the old ones.
    pub(in crate::state) fn try_bindings(&mut self, next: Bindings) -> Bindings {
        std::mem::replace(&mut self.bindings, next)
    }

    /// Commits knobs to the journal.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(in crate::state) fn commit_knobs(&mut self, knobs: &Knobs) -> Result<(), JournalError> {
        self.journal.commit_knobs(knobs)
    }

    /// Commits the number that events will not exceed.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(in crate::state) fn commit_events(&mut self, last: u64) -> Result<(), JournalError> {
        self.journal.commit_events(last)
    }

    /// Owner id of the container that a guest charges now.
    pub(in crate::state) fn charging(&self, guest: &Guest) -> u16 {
        let node = guest.about.charge_to.as_ref().and_then(|to| self.tree.get(to));
        node.map_or(guest.owner, |node| node.owner)
    }

    /// The container with this owner id.
    pub(in crate::state) fn path_of(&self, owner: u16) -> Option<&ContainerPath> {
        self.tree.iter().find(|(_, node)| node.owner == owner).map(|(path, _)| path)
    }
}
