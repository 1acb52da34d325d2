//! The decision.

use super::ceiling::Ceiling;
use super::fill::{Share, fill};
use super::observation::{GuestView, Observation, OutOfMemory};
use super::plan::{GuestTarget, Plan, Shortfall};
use protocol::bytes::{FRAME_BYTES, Human};
use protocol::limits::{Limits, WEIGHT_DEFAULT};
use protocol::path::ContainerPath;
use std::collections::BTreeMap;

/// Rounds of filling, see the module's head.
const ROUNDS: usize = 5;

/// What a member of a container can use up to the end of each round, bytes; not falling.
type Caps = [u64; ROUNDS];

struct Container<'a> {
    path: &'a ContainerPath,
    limits: &'a Limits,
    containers: Vec<usize>,
    guests: Vec<usize>,
    /// What it pays for beside them.
    charged_bytes: u64,
    /// What all guests inside need to live, whatever the limits say.
    floor_bytes: u64,
    caps: Caps,
}

/// The limit that binds on the way from the root, and its container.
type Bound<'a> = Option<(&'a ContainerPath, u64)>;

/// Targets for all guests.
#[must_use]
pub fn decide(observation: &Observation) -> Plan {
    let root = ContainerPath::root();
    let limits = Limits::default();
    let mut containers = arrange(observation, &root, &limits);
    measure(&mut containers, &observation.guests, 0);
    let mut charges = vec![(0, None); observation.guests.len()];
    let mut plan = Plan::default();
    share(&containers, &observation.guests, 0, u64::MAX, None, &mut charges, &mut plan.shortfalls);
    plan.targets = observation
        .guests
        .iter()
        .zip(charges)
        .map(|(guest, (bytes, bound))| target(guest, bytes, bound))
        .collect();
    plan
}

/// The tree by index, the root first.
fn arrange<'a>(
    observation: &'a Observation,
    root: &'a ContainerPath,
    limits: &'a Limits,
) -> Vec<Container<'a>> {
    let new = |path, limits, charged_bytes| Container {
        path,
        limits,
        charged_bytes,
        containers: vec![],
        guests: vec![],
        floor_bytes: 0,
        caps: [0; ROUNDS],
    };
    let mut containers = vec![new(root, limits, 0)];
    let mut index: BTreeMap<&ContainerPath, usize> = [(root, 0)].into();
    for view in &observation.containers {
        if view.path.is_root() {
            (containers[0].limits, containers[0].charged_bytes) = (&view.limits, view.charged_bytes);
        } else if !index.contains_key(&view.path) {
            index.insert(&view.path, containers.len());
            containers.push(new(&view.path, &view.limits, view.charged_bytes));
        }
    }
    for child in 1..containers.len() {
        let parent = containers[child].path.parent().and_then(|path| index.get(&path).copied()).unwrap_or(0);
        containers[parent].containers.push(child);
    }
    for (guest, view) in observation.guests.iter().enumerate() {
        let container = index.get(&view.container).copied().unwrap_or(0);
        containers[container].guests.push(guest);
    }
    containers
}

fn guest_caps(guest: &GuestView) -> Caps {
    let charged = |bytes: u64| bytes.saturating_add(guest.overhead_bytes);
    let floor = charged(guest.raised_floor_bytes());
    [floor, floor, floor, charged(guest.demand_bytes()), charged(guest.most_bytes())]
}

/// Sums up what is inside each container, bottom-up. The depth is bounded by [`protocol::path::DEPTH_MAX`].
fn measure(containers: &mut [Container<'_>], guests: &[GuestView], at: usize) {
    let mut caps: Caps = [containers[at].charged_bytes; ROUNDS];
    let mut floor_bytes = 0u64;
    let add = |sums: &mut Caps, caps: Caps| {
        sums.iter_mut().zip(caps).for_each(|(sum, cap)| *sum = sum.saturating_add(cap))
    };
    for guest in containers[at].guests.clone() {
        add(&mut caps, guest_caps(&guests[guest]));
        let least = guests[guest].hard_floor_bytes().saturating_add(guests[guest].overhead_bytes);
        floor_bytes = floor_bytes.saturating_add(least);
    }
    for child in containers[at].containers.clone() {
        measure(containers, guests, child);
        add(&mut caps, containers[child].caps);
        floor_bytes = floor_bytes.saturating_add(containers[child].floor_bytes);
    }
    let container = &mut containers[at];
    let ceiling = container.limits.ceiling_bytes().unwrap_or(u64::MAX);
    let [floor, min, low, demand, all] = caps.map(|cap| cap.min(ceiling));
    // Beyond its ceiling a container gets the bare floors only: a guest that runs out of memory again and again
    // takes from those under the same limit, never from those beside it.
    let floor = floor.max(floor_bytes);
    let all = all.max(floor);
    let min = min.max(container.limits.min_bytes).clamp(floor, all);
    let low = low.max(container.limits.low_bytes.min(demand)).clamp(min, all);
    container.caps = [floor, min, low, demand.clamp(low, all), all];
    container.floor_bytes = floor_bytes;
}

/// Divides what a container may use among its members, top-down.
fn share<'a>(
    containers: &[Container<'a>],
    guests: &[GuestView],
    at: usize,
    granted: u64,
    bound: Bound<'a>,
    charges: &mut [(u64, Bound<'a>)],
    shortfalls: &mut Vec<Shortfall>,
) {
    let container = &containers[at];
    let (budget, bound) = match container.limits.ceiling_bytes() {
        Some(ceiling) if ceiling <= granted => (ceiling, Some((container.path, ceiling))),
        _ => (granted, bound),
    };
    let budget = budget.saturating_sub(container.charged_bytes);
    let members: Vec<(Caps, u32)> = container
        .guests
        .iter()
        .map(|guest| (guest_caps(&guests[*guest]), WEIGHT_DEFAULT))
        .chain(
            container
                .containers
                .iter()
                .map(|child| (containers[*child].caps, containers[*child].limits.weight.max(1))),
        )
        .collect();
    let mut have: Vec<u64> = members.iter().map(|(caps, _)| caps[0]).collect();
    let needed = have.iter().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
    if needed > budget {
        shortfalls.push(Shortfall {
            container: container.path.clone(),
            budget_bytes: budget,
            needed_bytes: needed,
        });
    } else {
        for round in 1..ROUNDS {
            let shares: Vec<Share> = members
                .iter()
                .zip(&have)
                .map(|((caps, weight), have)| Share { have: *have, cap: caps[round], weight: *weight })
                .collect();
            have = fill(&shares, budget);
            if have.iter().zip(&members).any(|(have, (caps, _))| *have < caps[round]) {
                break;
            }
        }
    }
    for (guest, bytes) in container.guests.iter().zip(&have) {
        charges[*guest] = (*bytes, bound);
    }
    for (child, bytes) in container.containers.iter().zip(&have[container.guests.len()..]) {
        share(containers, guests, *child, *bytes, bound, charges, shortfalls);
    }
}

fn target(guest: &GuestView, charged_bytes: u64, bound: Bound<'_>) -> GuestTarget {
    let floor = guest.raised_floor_bytes();
    // Whole frames, rounded down so that the sum stays inside the budget.
    let frames_bytes = charged_bytes.saturating_sub(guest.overhead_bytes) / FRAME_BYTES * FRAME_BYTES;
    let target_bytes = frames_bytes.max(floor).min(guest.ram_bytes);
    let at_ceiling = |ceiling: &&Ceiling| {
        target_bytes > floor && ceiling.bytes / FRAME_BYTES * FRAME_BYTES == target_bytes
    };
    if let Some(ceiling) = guest.ceiling.as_ref().filter(at_ceiling) {
        let (container, max) = (&ceiling.container, Human(ceiling.max_bytes));
        let reason =
            format!("What it holds and the room of {container}, which it charges, under its max, {max}");
        return GuestTarget { name: guest.name.clone(), target_bytes, reason };
    }
    let reason = match (bound, guest.out_of_memory) {
        _ if target_bytes == guest.ram_bytes => {
            "All of its RAM: no limit on the way to the root is smaller".into()
        }
        (_, OutOfMemory::Holding { .. }) if target_bytes == floor => {
            "It ran out of memory: it keeps what it holds for a while".into()
        }
        (_, OutOfMemory::Returning { .. }) if target_bytes == floor => {
            "It ran out of memory: it goes back as its own statistics permit".into()
        }
        (Some((path, limit)), _) if target_bytes == floor => {
            format!("Its floor: the limit of {path}, {}, leaves no more", Human(limit))
        }
        (Some((path, limit)), _) => {
            format!(
                "Its share of {path}, limited to {}, less {} for its vmm",
                Human(limit),
                Human(guest.overhead_bytes)
            )
        }
        (None, _) => "Its floor".into(),
    };
    GuestTarget { name: guest.name.clone(), target_bytes, reason }
}

#[cfg(test)]
#[path = "decide_test.rs"]
mod tests;
