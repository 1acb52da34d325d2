//! Objects of the host's kernel: how many each guest takes, and whether a limit allows more.
//!
//! vCPUs, guests and devices are fixed at launch and cannot be reclaimed: a launch beyond a limit is refused, and so is
//! a limit below the present number. File descriptors and threads come and go: a launch beyond a limit is refused as
//! well; a limit that is exceeded later is reported, and each `vmm` is told how many descriptors are left for it.

use crate::guests::Guest;
use crate::objects::{ObjectUsage, ObjectsObject};
use crate::state::State;
use crate::tree::{Node, Tree, TreeError};
use protocol::limits::{Limits, LimitsError};
use protocol::message::{Register, ToVmm};
use protocol::objects::{ObjectCounts, ObjectKind};
use protocol::path::ContainerPath;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A container that exceeds a limit again and again is reported once in this time.
const EVENT_EVERY: Duration = Duration::from_secs(60);

impl State {
    /// How many the guests in a container and in those inside it have.
    pub(in crate::state) fn objects_inside(&self, path: &ContainerPath) -> ObjectCounts {
        let mut sum = ObjectCounts::default();
        self.guests_inside(path).for_each(|guest| sum += guest.objects());
        sum
    }

    /// The same as clients see it.
    pub(in crate::state) fn objects_object(&self, path: &ContainerPath, node: &Node) -> ObjectsObject {
        let counts = self.objects_inside(path);
        let age_ms = self.guests_inside(path).filter_map(|guest| guest.objects_age_ms()).max();
        ObjectsObject::from_fn(|kind| {
            let (used, max) = (counts.of(kind), node.limits.max_of(kind));
            ObjectUsage {
                used,
                max,
                exceeded: max.is_some_and(|max| used > u64::from(max)),
                age_ms: age_ms.filter(|_| !kind.is_fixed_at_launch()),
            }
        })
    }

    /// The limits of a container, on the way of a launch to the root, that the launch would break.
    pub(in crate::state) fn objects_missing(
        &self,
        about: &Register,
        own: ObjectCounts,
        above: &ContainerPath,
        limits: &Limits,
    ) -> Vec<String> {
        let others = self.objects_inside(above);
        let mut sum = others;
        sum += own;
        sum.beyond(limits)
            .map(|(kind, max)| {
                let (field, name, over) = (kind.field(), &about.name, sum.of(kind) - max);
                let (others, own) = (others.of(kind), own.of(kind));
                format!(
                    "{field} of {above} is {max}, but its guests have {others} and guest {name:?} needs {own}: \
                     {over} too many"
                )
            })
            .collect()
    }

    /// Limits below the number of objects that cannot be reclaimed.
    pub(in crate::state) fn objects_held(&self, path: &ContainerPath, next: &Tree) -> Vec<TreeError> {
        let Some(node) = next.get(path) else { return vec![] };
        let before = self.tree.get(path).map(|node| &node.limits);
        let counts = self.objects_inside(path);
        let lowered =
            |kind: ObjectKind| before.and_then(|limits| limits.max_of(kind)) != node.limits.max_of(kind);
        counts
            .beyond(&node.limits)
            .filter(|(kind, _)| kind.is_fixed_at_launch() && lowered(*kind))
            .map(|(kind, max)| {
                let bound = format!("must be at least {}, what the guests in it have", counts.of(kind));
                let broken = LimitsError { field: kind.field(), value: max.to_string(), bound };
                TreeError::Limits { path: path.clone(), broken }
            })
            .collect()
    }

    /// Reports containers that exceed a limit, and tells each `vmm` how many descriptors are left for it.
    pub(in crate::state) fn watch_objects(&mut self) {
        let now = Instant::now();
        self.exceeded.retain(|_, at| now.duration_since(*at) < EVENT_EVERY);
        let limited = |node: &Node| ObjectKind::ALL.iter().any(|kind| node.limits.max_of(*kind).is_some());
        let mut counts: BTreeMap<ContainerPath, ObjectCounts> = self
            .tree
            .iter()
            .filter(|(_, node)| limited(node))
            .map(|(path, _)| (path.clone(), ObjectCounts::default()))
            .collect();
        if !counts.is_empty() {
            for guest in self.guests.values() {
                for above in guest.about.container.ancestors() {
                    if let Some(sum) = counts.get_mut(&above) {
                        *sum += guest.objects();
                    }
                }
            }
        }
        for (path, sum) in &counts {
            let limits = &self.tree.get(path).expect("taken from the tree").limits;
            for (kind, max) in sum.beyond(limits) {
                if self.exceeded.insert((path.clone(), kind), now).is_none() {
                    let detail = format!("{} is {max}, but its guests have {}", kind.field(), sum.of(kind));
                    self.events.push("objects_exceeded", None, Some(path), &detail);
                }
            }
        }
        for guest in self.guests.values_mut() {
            let fds_max = fds_left(&self.tree, &counts, guest);
            if guest.sent_fds_max != fds_max && guest.say(ToVmm::FdsMax { fds_max }) {
                guest.sent_fds_max = fds_max;
            }
        }
    }
}

/// How many descriptors the limits leave for a guest next to the others.
fn fds_left(tree: &Tree, counts: &BTreeMap<ContainerPath, ObjectCounts>, guest: &Guest) -> Option<u32> {
    let own = guest.objects().fds;
    let left = |above: ContainerPath| {
        let max = tree.get(&above)?.limits.max_fds?;
        let others = counts.get(&above)?.fds.saturating_sub(own);
        Some(max.saturating_sub(u32::try_from(others).unwrap_or(u32::MAX)))
    };
    guest.about.container.ancestors().filter_map(left).min()
}
