//! What limits must satisfy across the tree.
//!
//! A child's `max` may exceed its parent's (the smaller one binds, as in cgroup v2). But a promise that cannot be kept
//! is refused: what is protected inside a container (`min`) must fit below its `max`.

use super::{Tree, TreeError};
use protocol::limits::LimitsError;
use protocol::path::ContainerPath;

impl Tree {
    /// Every bound that the limits of `path` break: alone, against all above it and against all inside it, expressed
    /// in terms of those limits.
    #[must_use]
    pub fn broken(&self, path: &ContainerPath) -> Vec<TreeError> {
        let Some(node) = self.nodes.get(path) else { return vec![TreeError::Missing(path.clone())] };
        let mut broken = node.limits.violations();
        if let Some(max) = node.limits.max_bytes.filter(|max| *max > 0) {
            let inside = self.promised_inside(path);
            if inside > max {
                broken.push(LimitsError {
                    field: "max_bytes",
                    value: max.to_string(),
                    bound: format!("must be at least {inside}, the sum of min_bytes inside {path}"),
                    by_itself: false,
                });
            }
        }
        for above in path.ancestors().skip(1) {
            let Some(max) = self.nodes.get(&above).and_then(|node| node.limits.max_bytes) else { continue };
            let inside = self.promised_inside(&above);
            if inside > max {
                let own = self.promised(path);
                let room = max.saturating_sub(inside.saturating_sub(own));
                broken.push(LimitsError {
                    field: "min_bytes",
                    value: node.limits.min_bytes.to_string(),
                    bound: format!(
                        "must be at most {room}, what max_bytes of {above} leaves next to the other containers in it"
                    ),
                    by_itself: false,
                });
            }
        }
        broken.into_iter().map(|broken| TreeError::Limits { path: path.clone(), broken }).collect()
    }

    /// What a container must be able to hold for its own `min` and for those inside it.
    fn promised(&self, path: &ContainerPath) -> u64 {
        let own = self.nodes.get(path).map_or(0, |node| node.limits.min_bytes);
        own.max(self.promised_inside(path))
    }

    /// What the containers inside one are promised together.
    pub(crate) fn promised_inside(&self, path: &ContainerPath) -> u64 {
        self.children(path).fold(0u64, |sum, (child, _)| sum.saturating_add(self.promised(child)))
    }
}
