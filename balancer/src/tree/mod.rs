//! The container tree: which container is inside which, under which limits. Pure; a change is made on a copy,
//! committed to the journal, and only then becomes the tree.

mod change;
mod checks;
mod node;

pub use change::Put;
pub use node::Node;

use protocol::domain::Domain;
use protocol::path::ContainerPath;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Owner id of the root container; 0 stands for none.
pub const OWNER_ROOT: u16 = 1;
/// Most containers of one balancer: what an owner id of 16 bits can name, less 0.
pub const CONTAINERS_MAX: usize = u16::MAX as usize;

/// Why a change of the tree is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// No such container.
    #[error("There is no container {0}")]
    Missing(ContainerPath),
    /// A limit that contradicts a bound, its own container or another one.
    #[error("{path}: {broken}")]
    Limits {
        /// The container whose limits were to be set.
        path: ContainerPath,
        /// Field, value and bound. They are the text: as its cause as well they would be shown twice.
        broken: protocol::limits::LimitsError,
    },
    /// It holds guests or containers.
    #[error("{path} is not empty: it holds {inside}")]
    Busy {
        /// The container that was to be removed.
        path: ContainerPath,
        /// What is inside, as a phrase.
        inside: String,
    },
    /// The root is the host and stays.
    #[error("The root container stands for the host and cannot be removed")]
    Root,
    /// No owner id is left.
    #[error("There are {CONTAINERS_MAX} containers already, the most that are possible")]
    Full,
}

/// Every container by its path. The root is always there; a container's parent always is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<ContainerPath, Node>,
    /// Where the search for a free owner id starts: an id is not given again while others were never used, so that
    /// a frame charged to a container that is gone does not silently become another's.
    owner_next: u16,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node { limits: Default::default(), transient: false, owner: OWNER_ROOT };
        Self { nodes: [(ContainerPath::root(), root)].into(), owner_next: OWNER_ROOT + 1 }
    }
}

impl Tree {
    /// A tree from what a journal held. Missing parents are made, so that the invariants hold whatever it held.
    ///
    /// # Errors
    /// When there are more containers than owner ids.
    pub fn from_nodes(nodes: impl IntoIterator<Item = (ContainerPath, Node)>) -> Result<Self, TreeError> {
        let mut tree = Self::default();
        tree.nodes.extend(nodes);
        tree.owner_next = tree
            .nodes
            .values()
            .map(|node| node.owner)
            .max()
            .unwrap_or(OWNER_ROOT)
            .checked_add(1)
            .unwrap_or(2);
        let paths: Vec<ContainerPath> = tree.nodes.keys().cloned().collect();
        for path in paths {
            tree.ensure(&path)?;
        }
        Ok(tree)
    }

    /// A container.
    #[must_use]
    pub fn get(&self, path: &ContainerPath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// All containers in the order of their paths.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&ContainerPath, &Node)> {
        self.nodes.iter()
    }

    /// The containers directly inside one.
    pub fn children<'a>(
        &'a self,
        path: &'a ContainerPath,
    ) -> impl Iterator<Item = (&'a ContainerPath, &'a Node)> {
        // Paths are in the order of their text, so those inside a path follow `path/` without a gap.
        let start = if path.is_root() { path.to_string() } else { format!("{path}/") };
        self.nodes
            .range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded))
            .skip_while(|(child, _)| child.is_root())
            .map_while(|(child, node)| Some((child, node, child.below(path)?)))
            .filter(|(_, _, rest)| !rest.contains('/'))
            .map(|(child, node, _)| (child, node))
    }

    /// The trust domain of guests in a container, which need not be there yet: that of the nearest container on the
    /// way to the root that has one, else the container's own in the root.
    #[must_use]
    pub fn domain(&self, path: &ContainerPath) -> Domain {
        let chosen = path.ancestors().find_map(|above| self.nodes.get(&above)?.limits.domain.clone());
        chosen.unwrap_or_else(|| match path.as_str().split('/').nth(1) {
            Some(name) if !name.is_empty() => Domain::of_container(name),
            _ => Domain::host(),
        })
    }
}

#[cfg(test)]
#[path = "tree_test.rs"]
mod tests;
