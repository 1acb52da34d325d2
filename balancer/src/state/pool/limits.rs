//! The limits of containers that pay for pages of the shared pool: pages that no guest maps are evicted, and too
//! many mapped pages are an event.

use crate::objects::PoolShortfall;
use crate::pool::Pool;
use crate::state::pool::{COMMON, payers_of};
use crate::state::{State, StateError};
use crate::tree::{Tree, TreeError};
use accounting::{ContainerId, Usage};
use protocol::bytes::Human;
use protocol::limits::LimitsError;
use protocol::path::ContainerPath;

impl State {
    /// A `max` below what a container pays for and guests map is refused: mapped pages cannot be evicted. Those of
    /// images that the balancer fills can be, down to what guests need at once.
    pub(in crate::state) fn check_pinned(&self, path: &ContainerPath, next: &Tree) -> Result<(), StateError> {
        let max_of = |tree: &Tree| tree.get(path).and_then(|node| node.limits.max_bytes);
        let Some(max) = max_of(next).filter(|max| Some(*max) != max_of(self.containers.tree())) else {
            return Ok(());
        };
        let needed: u64 = self.payers_of(path).map(|payer| self.pool.images.needed_bytes(payer)).sum();
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
        let broken = LimitsError { field: "max_bytes", value: max.to_string(), bound, by_itself: false };
        Err(TreeError::Limits { path: path.clone(), broken }.into())
    }

    /// Evicts unmapped pages where a limit is exceeded: pages of the containers that pay for them, and of those
    /// inside a container that holds too much. They are evicted before any guest has to release memory.
    pub(in crate::state) fn keep_pool_limits(&mut self) {
        let usage = self.usage();
        let paths = self.paying_containers();
        let shortfalls: Vec<PoolShortfall> =
            paths.iter().filter_map(|path| self.pool_shortfall(path, &usage)).collect();
        for path in &paths {
            let excess = |above: ContainerPath| self.excess_bytes(&above, &usage);
            let mut bytes = path.ancestors().filter_map(excess).max().unwrap_or(0);
            for payer in self.payers_of(path) {
                let bytes_here = bytes.min(self.pool.images.unmapped_bytes(payer));
                self.pool.images.evict(payer, bytes_here);
                bytes -= bytes_here;
            }
        }
        for shortfall in &shortfalls {
            if !self.pool.shortfalls.iter().any(|known| known.container == shortfall.container) {
                self.events.push("pool_shortfall", None, Some(&shortfall.container), &describe(shortfall));
            }
        }
        self.pool.shortfalls = shortfalls;
    }

    /// By how much a container exceeds its `max`, bytes; `None` for one without.
    fn excess_bytes(&self, path: &ContainerPath, usage: &Usage) -> Option<u64> {
        let max = self.containers.tree().get(path)?.limits.max_bytes?;
        Some(self.usage_inside(usage, path).bytes.saturating_sub(max))
    }

    /// What a container pays for beyond its `max` although nothing of it can be evicted.
    fn pool_shortfall(&self, path: &ContainerPath, usage: &Usage) -> Option<PoolShortfall> {
        let max_bytes = self.containers.tree().get(path)?.limits.max_bytes?;
        let sum = |of: fn(&Pool, ContainerId) -> u64| -> u64 {
            self.payers_of(path).map(|payer| of(&self.pool.images, payer)).sum()
        };
        let (mapped_bytes, kept_bytes) = (sum(Pool::pinned_bytes), sum(Pool::kept_bytes));
        let missing_bytes = self.excess_bytes(path, usage)?.min(mapped_bytes + kept_bytes);
        (missing_bytes > 0 && sum(Pool::unmapped_bytes) == 0).then(|| PoolShortfall {
            container: path.clone(),
            max_bytes,
            mapped_bytes,
            kept_bytes,
            missing_bytes,
        })
    }

    /// The pool's own container, and those that images are bound to.
    fn paying_containers(&self) -> Vec<ContainerPath> {
        let bound: Vec<u16> =
            self.pool.images.iter().filter_map(|(_, image)| image.bound.map(|bound| bound.0)).collect();
        let pays = |(path, node): &(&ContainerPath, &crate::tree::Node)| {
            path.as_str() == COMMON || bound.contains(&node.owner)
        };
        self.containers.tree().iter().filter(pays).map(|(path, _)| path.clone()).collect()
    }

    /// What a container pays for as a whole and guests map, bytes.
    fn pinned_bytes(&self, path: &ContainerPath) -> u64 {
        self.payers_of(path).map(|payer| self.pool.images.pinned_bytes(payer)).sum()
    }

    /// The names that a container has in the pool's accounts, if it pays for images as a whole.
    pub(in crate::state) fn payers_of(
        &self,
        path: &ContainerPath,
    ) -> impl Iterator<Item = ContainerId> + use<> {
        payers_of(self.containers.tree(), path)
    }
}

/// A shortfall as a sentence.
fn describe(shortfall: &PoolShortfall) -> String {
    format!(
        "max is {}, but guests map {} of what it pays for, and the kernel keeps {} next to that: {} cannot be evicted",
        Human(shortfall.max_bytes),
        Human(shortfall.mapped_bytes),
        Human(shortfall.kept_bytes),
        Human(shortfall.missing_bytes)
    )
}
