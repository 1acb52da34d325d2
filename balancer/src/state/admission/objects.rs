//! Objects of the host's kernel: who takes how many, and whether a limit allows more.
//!
//! vCPUs, guests and devices are given at launch and cannot be taken back: a launch beyond a limit is refused, and so is
//! a limit below what is used. File descriptors and threads come and go: a launch beyond a limit is refused as well; who
//! grows beyond it later is told of, and each `vmm` is told how many descriptors are left for it.

use crate::guests::Guest;
use crate::state::State;
use crate::tree::{Node, Tree, TreeError};
use protocol::limits::{Limits, LimitsError};
use protocol::message::{Register, ToVmm};
use protocol::objects::{ObjectCounts, ObjectKind};
use protocol::path::ContainerPath;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// A container that crosses a limit again and again is told of once in so long.
const EVENT_EVERY: Duration = Duration::from_secs(60);

/// Objects of one kind.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ObjectUsage {
    /// How many the guests in the container and in those inside it have.
    pub used: u64,
    /// The most they may have; `null` for no limit.
    pub max: Option<u32>,
    /// True if they have more.
    pub exceeded: bool,
    /// Age of the oldest count, milliseconds; `null` for what is known and not counted, and without guests.
    pub age_ms: Option<u64>,
}

/// Objects of all kinds.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ObjectsObject {
    /// Virtual CPUs.
    pub vcpus: ObjectUsage,
    /// Guests.
    pub guests: ObjectUsage,
    /// Virtio devices, by the word of the `vmm`s.
    pub devices: ObjectUsage,
    /// Open file descriptors of the `vmm`s: the larger of what they told and what the kernel counts.
    pub fds: ObjectUsage,
    /// Threads of the `vmm`s: the larger of what they told and what the kernel counts.
    pub threads: ObjectUsage,
}

impl State {
    /// What the guests in a container and in those inside it have.
    pub(in crate::state) fn objects_inside(&self, path: &ContainerPath) -> ObjectCounts {
        let mut sum = ObjectCounts::default();
        self.guests_inside(path).for_each(|guest| sum += guest.objects());
        sum
    }

    /// The same as clients see it.
    pub(in crate::state) fn objects_object(&self, path: &ContainerPath, node: &Node) -> ObjectsObject {
        let counts = self.objects_inside(path);
        let age_ms = self.guests_inside(path).filter_map(|guest| guest.objects_age_ms()).max();
        let of = |kind| {
            let (used, max) = (counts.of(kind), node.limits.max_of(kind));
            ObjectUsage {
                used,
                max,
                exceeded: max.is_some_and(|max| used > u64::from(max)),
                age_ms: age_ms.filter(|_| !kind.is_fixed_at_launch()),
            }
        };
        ObjectsObject {
            vcpus: of(ObjectKind::Vcpus),
            guests: of(ObjectKind::Guests),
            devices: of(ObjectKind::Devices),
            fds: of(ObjectKind::Fds),
            threads: of(ObjectKind::Threads),
        }
    }

    /// What a limit of a container on the way of a launch to the root does not allow.
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
                let (field, others, own, over) =
                    (kind.field(), others.of(kind), own.of(kind), sum.of(kind) - max);
                format!(
                    "{field} of {above} is {max}, but its guests have {others} and guest {:?} needs {own}: {over} too many",
                    about.name
                )
            })
            .collect()
    }

    /// Limits below what is used and cannot be taken back.
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

    /// Tells of containers that have more than they may, and tells each `vmm` how many descriptors are left for it.
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

/// How many descriptors the limits leave for a guest beside the others.
fn fds_left(tree: &Tree, counts: &BTreeMap<ContainerPath, ObjectCounts>, guest: &Guest) -> Option<u32> {
    let own = guest.objects().fds;
    let left = |above: ContainerPath| {
        let max = tree.get(&above)?.limits.max_fds?;
        let others = counts.get(&above)?.fds.saturating_sub(own);
        Some(max.saturating_sub(u32::try_from(others).unwrap_or(u32::MAX)))
    };
    guest.about.container.ancestors().filter_map(left).min()
}
