//! At rest, members of a container that contend for the same memory have it by their weights, within 1 %.
//!
//! A member contends if it has more than is certain for it and less than it asks for: between what is protected and
//! what its programs use, or between what they use and what it needs. Members that have no more than they use do not
//! contend with members that ask for headroom.

use super::super::world::World;
use super::sums::Sums;
use super::{Checker, MIB};
use policy::{Health, OutOfMemory, Plan};
use protocol::limits::WEIGHT_DEFAULT;

/// The smallest and the largest amount that a member has per weight, with its container.
#[derive(Debug, Clone, Copy)]
struct Range {
    low: (f64, usize),
    high: (f64, usize),
}

/// What a member contends for: 0 for what it uses, 1 for headroom.
fn contends(given: u64, certain: u64, used: u64, need: u64) -> Option<usize> {
    let between =
        |low: u64, high: u64| given > low.saturating_add(2 * MIB) && given.saturating_add(2 * MIB) < high;
    if between(certain, used) {
        Some(0)
    } else if between(used.max(certain), need) {
        Some(1)
    } else {
        None
    }
}

impl Checker {
    pub(super) fn weights(&mut self, world: &World, plan: &Plan, sums: &[Sums]) {
        let observation = &world.observation;
        let containers = &observation.containers;
        let mut ranges: Vec<[Option<Range>; 2]> = vec![[None; 2]; containers.len()];
        let mut add = |parent: usize, member: usize, of: usize, ratio: f64| {
            let own = (ratio, member);
            let range = ranges[parent][of].get_or_insert(Range { low: own, high: own });
            if ratio < range.low.0 {
                range.low = own;
            }
            if ratio > range.high.0 {
                range.high = own;
            }
        };
        for at in 1..containers.len() {
            let (limits, sum) = (&containers[at].limits, &sums[at]);
            let promised = |limits: &protocol::limits::Limits| limits.min_bytes + limits.low_bytes > 0;
            let inside = containers.iter().any(|inside| inside.parent == at && promised(&inside.limits));
            if promised(limits) || inside || sum.odd + sum.excluded > 0 {
                continue;
            }
            let ceiling = limits.ceiling_bytes().unwrap_or(u64::MAX);
            if let Some(of) = contends(sum.target, sum.floor, sum.used.min(ceiling), sum.need.min(ceiling)) {
                add(containers[at].parent, at, of, sum.target as f64 / f64::from(limits.weight));
            }
        }
        for (view, target) in observation.guests.iter().zip(&plan.targets) {
            let odd = target.memory.health == Health::Vanished || view.out_of_memory != OutOfMemory::No;
            // A guest alone in its container contends as the container.
            if odd || target.memory.health.is_excluded() || sums[view.container].guests == 1 {
                continue;
            }
            let [given, floor, used, need] =
                [target.target_bytes, target.floor_bytes, target.used_bytes, target.need_bytes]
                    .map(|bytes| bytes + view.overhead_bytes);
            if let Some(of) = contends(given, floor, used, need) {
                add(view.container, view.container, of, given as f64 / f64::from(WEIGHT_DEFAULT));
            }
        }
        for (at, range) in ranges.into_iter().enumerate().flat_map(|(at, two)| two.map(|range| (at, range))) {
            let Some(range) = range.filter(|range| range.high.0 > range.low.0 * 1.01) else { continue };
            let of = |(ratio, at): (f64, usize)| {
                let (path, sum) = (&containers[at].path, &sums[at]);
                format!("{path} {ratio:.0} per weight, {} of {} MiB", sum.target / MIB, sum.need / MIB)
            };
            let detail = format!("{}: {}; {}", containers[at].path, of(range.low), of(range.high));
            self.fail(observation.now_ms, "weights are met within 1 % at rest", detail);
        }
    }
}
