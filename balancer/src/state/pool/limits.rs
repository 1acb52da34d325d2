//! The limits of containers that pay for pages of the shared pool: what nobody maps goes, and what is mapped is told of.

use crate::pool::PoolShortfall;
use crate::state::State;
use crate::state::pool::pages::COMMON;
use crate::tree::{Tree, TreeError};
use accounting::{ContainerId, POOL};
use protocol::bytes::Human;
use protocol::limits::LimitsError;
use protocol::path::ContainerPath;
use std::collections::BTreeMap;

impl State {
    /// A `max` below what a container pays for and guests map is refused: that cannot be let go. Of images that the balancer fills it
    /// can, down to what guests need at once.
    pub(in crate::state) fn check_pinned(
        &self,
        path: &ContainerPath,
        next: &Tree,
    ) -> Result<(), crate::state::StateError> {
        let max_of = |tree: &Tree| tree.get(path).and_then(|node| node.limits.max_bytes);
        let Some(max) = max_of(next).filter(|max| Some(*max) != max_of(&self.tree)) else { return Ok(()) };
        let needed: u64 = self.payers_of(path).map(|payer| self.pool.needed_bytes(payer)).sum();
        let least = self.pinned_bytes(path) + needed;
        if least <= max {
            return Ok(());
        }
        let what = if needed == 0 {
            "what it pays for of images that guests map"
        } else {
            "what guests need of its images"
        };
        let bound = format!("must be at least {least}, {what}");
        let broken = LimitsError { field: "max_bytes", value: max.to_string(), bound };
        Err(TreeError::Limits { path: path.clone(), broken }.into())
    }

    /// Lets unmapped pages go where a limit is exceeded: of those who pay for them, and of those that are inside a container
    /// that holds too much. They go before any guest shrinks.
    pub(in crate::state) fn keep_pool_limits(&mut self) {
        let usage = self.usage();
        let mut shortfalls = Vec::new();
        let mut excess: BTreeMap<ContainerPath, u64> = BTreeMap::new();
        for path in self.paying_containers() {
            let over = |above: ContainerPath| {
                let max = self.tree.get(&above)?.limits.max_bytes?;
                Some(self.usage_inside(&usage, &above).bytes.saturating_sub(max))
            };
            let most = path.ancestors().filter_map(over).max().unwrap_or(0);
            excess.insert(path.clone(), most);
            let pinned_bytes = self.pinned_bytes(&path);
            let Some(max_bytes) = self.tree.get(&path).and_then(|node| node.limits.max_bytes) else {
                continue;
            };
            let kept_bytes = self.payers_of(&path).map(|payer| self.pool.kept_bytes(payer)).sum();
            let over = self.usage_inside(&usage, &path).bytes.saturating_sub(max_bytes);
            let missing_bytes = over.min(pinned_bytes + kept_bytes);
            let unmapped: u64 = self.payers_of(&path).map(|payer| self.pool.unmapped_bytes(payer)).sum();
            if missing_bytes > 0 && unmapped == 0 {
                shortfalls.push(PoolShortfall {
                    container: path,
                    max_bytes,
                    mapped_bytes: pinned_bytes,
                    kept_bytes,
                    missing_bytes,
                });
            }
        }
        for (path, mut bytes) in excess {
            for payer in self.payers_of(&path) {
                let bytes_here = bytes.min(self.pool.unmapped_bytes(payer));
                self.pool.evict(payer, bytes_here);
                bytes -= bytes_here;
            }
        }
        for shortfall in &shortfalls {
            if !self.pool_shortfalls.iter().any(|known| known.container == shortfall.container) {
                let detail = format!(
                    "max is {}, but guests map {} of what it pays for, and the kernel keeps {} beside that: {} cannot be let go",
                    Human(shortfall.max_bytes),
                    Human(shortfall.mapped_bytes),
                    Human(shortfall.kept_bytes),
                    Human(shortfall.missing_bytes)
                );
                self.events.push("pool_shortfall", None, Some(&shortfall.container), &detail);
            }
        }
        self.pool_shortfalls = shortfalls;
    }

    /// The pool's own container, and those that images are bound to.
    fn paying_containers(&self) -> Vec<ContainerPath> {
        let bound: Vec<u16> =
            self.pool.iter().filter_map(|(_, image)| image.bound.map(|bound| bound.0)).collect();
        let pays = |(path, node): &(&ContainerPath, &crate::tree::Node)| {
            path.as_str() == COMMON || bound.contains(&node.owner)
        };
        self.tree.iter().filter(pays).map(|(path, _)| path.clone()).collect()
    }

    /// What a container pays for as a whole and guests map, bytes.
    fn pinned_bytes(&self, path: &ContainerPath) -> u64 {
        self.payers_of(path).map(|payer| self.pool.pinned_bytes(payer)).sum()
    }

    /// The books' names of a container that pays for images as a whole.
    pub(in crate::state) fn payers_of(
        &self,
        path: &ContainerPath,
    ) -> impl Iterator<Item = ContainerId> + use<> {
        let own = self.tree.get(path).map(|node| ContainerId(node.owner));
        let pool = (path.as_str() == COMMON).then_some(POOL);
        own.into_iter().chain(pool)
    }

    /// What of the pool counts against the limit of a container, bytes. What is charged to the pool's own container squeezes
    /// no guest: that is let go instead.
    pub(in crate::state) fn pool_bytes_for_policy(&self, path: &ContainerPath, owner: u16) -> u64 {
        if path.as_str() == COMMON { 0 } else { self.pool.enforceable_bytes(ContainerId(owner)) }
    }
}
