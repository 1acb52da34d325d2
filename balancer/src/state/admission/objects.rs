//! Objects of the host's kernel: how many each guest takes, and whether a limit allows more.
//!
//! vCPUs, guests and devices are given at launch and cannot be reclaimed: a launch beyond a limit is refused, and so
//! is a limit below what is used. File descriptors and threads come and go: a launch beyond a limit is refused as
//! well; a container that grows beyond it later causes an event, and each `vmm` is told how many descriptors are
//! left for it.

use crate::guests::Guest;
use crate::objects::{ObjectUsage, ObjectsObject};
use crate::state::State;
use crate::state::registry::Registry;
use crate::tree::{Node, Tree, TreeError};
use protocol::limits::LimitsError;
use protocol::message::{Register, ToVmm};
use protocol::objects::{ObjectCounts, ObjectKind};
use protocol::path::ContainerPath;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// At most one event in this time for a container that crosses a limit again and again.
const EVENT_EVERY: Duration = Duration::from_secs(60);

impl State {
    /// What the guests in a container and in those inside it have, as clients see it.
    pub(in crate::state) fn objects_object(
        &self,
        path: &ContainerPath,
        node: &Node,
        now: Instant,
    ) -> ObjectsObject {
        let counts = self.guests.objects_inside(path);
        let age_ms = self.guests.inside(path).filter_map(|guest| guest.objects_age_ms(now)).max();
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

    /// What a limit of a container on the way from a new guest to the root does not allow.
    pub(in crate::state) fn objects_missing(
        &self,
        about: &Register,
        own: ObjectCounts,
        above: &ContainerPath,
        next: &Tree,
    ) -> Vec<String> {
        let Some(Node { limits, .. }) = next.get(above) else { return vec![] };
        let others = self.guests.objects_inside(above);
        let mut sum = others;
        sum += own;
        sum.beyond(limits)
            .map(|(kind, max)| {
                let (field, others, own, over) =
                    (kind.field(), others.of(kind), own.of(kind), sum.of(kind) - max);
                format!(
                    "{field} of {above} is {max}, but its guests have {others} and guest {:?} needs {own}: \
                     {over} too many",
                    about.name
                )
            })
            .collect()
    }

    /// Limits below what is used and cannot be reclaimed.
    pub(in crate::state) fn objects_held(&self, path: &ContainerPath, next: &Tree) -> Vec<TreeError> {
        let Some(node) = next.get(path) else { return vec![] };
        let before = self.containers.tree().get(path).map(|node| &node.limits);
        let counts = self.guests.objects_inside(path);
        let lowered =
            |kind: ObjectKind| before.and_then(|limits| limits.max_of(kind)) != node.limits.max_of(kind);
        counts
            .beyond(&node.limits)
            .filter(|(kind, _)| kind.is_fixed_at_launch() && lowered(*kind))
            .map(|(kind, max)| {
                let bound = format!("must be at least {}, what the guests in it have", counts.of(kind));
                let broken =
                    LimitsError { field: kind.field(), value: max.to_string(), bound, by_itself: false };
                TreeError::Limits { path: path.clone(), broken }
            })
            .collect()
    }

    /// Reports containers that exceed a limit, and tells each `vmm` how many descriptors are left for it.
    pub(in crate::state) fn watch_objects(&mut self, now: Instant) {
        let tree = self.containers.tree();
        let counts = limited_counts(tree, &self.guests);
        for (path, kind, max, used) in self.objects.update(tree, &counts, now) {
            let detail = format!("{} is {max}, but its guests have {used}", kind.field());
            self.events.push("objects_exceeded", None, Some(&path), &detail);
        }
        for guest in self.guests.iter_mut() {
            let fds_max = fds_left(tree, &counts, guest);
            if guest.sent_fds_max != fds_max && guest.send(ToVmm::FdsMax { fds_max }) {
                guest.sent_fds_max = fds_max;
            }
        }
    }
}

/// What containers with limits on objects have.
fn limited_counts(tree: &Tree, guests: &Registry) -> BTreeMap<ContainerPath, ObjectCounts> {
    let limited = |node: &Node| ObjectKind::ALL.iter().any(|kind| node.limits.max_of(*kind).is_some());
    let limited = tree.iter().filter(|(_, node)| limited(node));
    let mut counts: BTreeMap<ContainerPath, ObjectCounts> =
        limited.map(|(path, _)| (path.clone(), ObjectCounts::default())).collect();
    if counts.is_empty() {
        return counts;
    }
    for guest in guests.by_seq() {
        for above in guest.about.container.ancestors() {
            if let Some(sum) = counts.get_mut(&above) {
                *sum += guest.objects();
            }
        }
    }
    counts
}

/// Limits on objects that are exceeded, or were until lately, and when they last were.
#[derive(Debug, Default)]
pub(in crate::state) struct Exceeded(BTreeMap<(ContainerPath, ObjectKind), Instant>);

impl Exceeded {
    /// Takes new counts into account. Returns the limits that are exceeded now and were not lately: path, kind,
    /// limit, count.
    fn update(
        &mut self,
        tree: &Tree,
        counts: &BTreeMap<ContainerPath, ObjectCounts>,
        now: Instant,
    ) -> Vec<(ContainerPath, ObjectKind, u64, u64)> {
        self.0.retain(|_, at| now.saturating_duration_since(*at) < EVENT_EVERY);
        let mut news = Vec::new();
        for (path, sum) in counts {
            let Some(node) = tree.get(path) else { continue };
            for (kind, max) in sum.beyond(&node.limits) {
                if self.0.insert((path.clone(), kind), now).is_none() {
                    news.push((path.clone(), kind, max, sum.of(kind)));
                }
            }
        }
        news
    }
}

/// How many descriptors the limits leave for a guest after what the others have.
fn fds_left(tree: &Tree, counts: &BTreeMap<ContainerPath, ObjectCounts>, guest: &Guest) -> Option<u32> {
    let own = guest.objects().fds;
    let left = |above: ContainerPath| {
        let max = tree.get(&above)?.limits.max_fds?;
        let others = counts.get(&above)?.fds.saturating_sub(own);
        Some(max.saturating_sub(u32::try_from(others).unwrap_or(u32::MAX)))
    };
    guest.about.container.ancestors().filter_map(left).min()
}
