//! What a system costs: bytes, nanoseconds an event, microseconds a container.

use super::replay::round;
use accounting::{Accounting, ContainerId, GuestId, Kind, Run, UNITS_PER_FRAME, User, ZONE_FRAMES};
use balancer::tree::Tree;
use protocol::limits::{Limits, LimitsPatch};
use protocol::path::ContainerPath;
use serde::Serialize;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

/// Frames of the measured host: 1 GiB.
const FRAMES: u64 = 1 << 18;
/// Frames of an event.
const RUNS: [u64; 4] = [1, 16, 512, 8192];
/// Guests that share.
const SHARERS: u16 = 8;
/// Each time is measured this often, and the median counts.
const REPEATS: usize = 5;

/// Makes a system for an empty host.
pub type Build = dyn Fn() -> Box<dyn Accounting>;

/// Bytes that a system takes in addition to the frame table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Storage {
    /// Per frame of 1 GiB of guest RAM that was touched in whole blocks.
    pub bytes_per_frame: f64,
    /// The same by zone of 2 MiB.
    pub bytes_per_zone: f64,
    /// Per frame where every other frame belongs to another container: the worst case.
    pub bytes_per_frame_fragmented: f64,
    /// Per frame of the pool that 8 guests share, each a different part of it.
    pub bytes_per_frame_shared: f64,
}

/// Time of an event by its run length, frames. Nanoseconds: medians.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventTime {
    /// First touch.
    pub touch_ns: BTreeMap<u64, f64>,
    /// The eighth guest maps what seven map already.
    pub share_ns: BTreeMap<u64, f64>,
    /// Free.
    pub free_ns: BTreeMap<u64, f64>,
}

/// Time of a change of a container, on the tree of 100 containers and in the system. Nanoseconds: medians.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContainerTime {
    /// It is made and charged for the first time.
    pub create_ns: f64,
    /// Its limit changes, and its charge is held against it.
    pub resize_ns: f64,
    /// It is removed, with 16 MiB still charged to it.
    pub destroy_ns: f64,
}

fn user(guest: u16) -> User {
    User { guest: GuestId(guest), container: ContainerId(guest) }
}

impl Storage {
    /// Measures.
    #[must_use]
    pub fn of(build: &Build) -> Self {
        let per = |bytes: usize, of: u64| round(bytes as f64 / of as f64);
        let mut whole = build();
        for first in (0..FRAMES).step_by(512) {
            whole.touch(Run { first, count: 512 }, user(1), Kind::Private);
        }
        let mut fragmented = build();
        for first in 0..FRAMES {
            fragmented.touch(Run { first, count: 1 }, user(1 + u16::from(first % 2 == 1)), Kind::Private);
        }
        let mut shared = build();
        let mut random = fastrand::Rng::with_seed(0);
        for first in (0..FRAMES).step_by(64) {
            shared.touch(Run { first, count: 64 }, user(1), Kind::Pool);
            for guest in 2..=SHARERS {
                if random.bool() {
                    shared.share(Run { first, count: 64 }, user(guest));
                }
            }
        }
        Self {
            bytes_per_frame: per(whole.storage_bytes(), FRAMES),
            bytes_per_zone: per(whole.storage_bytes(), FRAMES / u64::from(ZONE_FRAMES)),
            bytes_per_frame_fragmented: per(fragmented.storage_bytes(), FRAMES),
            bytes_per_frame_shared: per(shared.storage_bytes(), FRAMES),
        }
    }
}

impl EventTime {
    /// Measures.
    #[must_use]
    pub fn of(build: &Build) -> Self {
        let all = Run { first: 0, count: FRAMES };
        let mut time = Self { touch_ns: [].into(), share_ns: [].into(), free_ns: [].into() };
        for count in RUNS {
            let (mut touch, mut share, mut free) = (vec![], vec![], vec![]);
            for _ in 0..REPEATS {
                let system = &mut *build();
                touch.push(each(count, |run| system.touch(run, user(1), Kind::Pool)));
                (2..SHARERS).for_each(|guest| system.share(all, user(guest)));
                share.push(each(count, |run| system.share(run, user(SHARERS))));
                (2..=SHARERS).for_each(|guest| system.unshare(all, GuestId(guest)));
                free.push(each(count, |run| system.free(run, Some(GuestId(1)))));
                black_box(system.charged(ContainerId(1)));
            }
            time.touch_ns.insert(count, median(touch));
            time.share_ns.insert(count, median(share));
            time.free_ns.insert(count, median(free));
        }
        time
    }
}

/// Time of an event over runs of `count` frames, nanoseconds.
fn each(count: u64, mut event: impl FnMut(Run)) -> f64 {
    let start = Instant::now();
    for first in (0..FRAMES).step_by(usize::try_from(count).expect("small")) {
        event(Run { first, count });
    }
    start.elapsed().as_nanos() as f64 / (FRAMES / count) as f64
}

impl ContainerTime {
    /// Measures.
    #[must_use]
    pub fn of(build: &Build) -> Self {
        const CONTAINERS: u16 = 100;
        let path = |name: u16| format!("/c{name}").parse::<ContainerPath>().expect("a path");
        let limits = || Limits { max_bytes: Some(1 << 30), ..Default::default() };
        let mut tree = Tree::default();
        for name in 0..CONTAINERS {
            tree.place(&path(name), limits()).expect("there is room");
        }
        let new = path(CONTAINERS);
        let mut system = build();
        let patch = LimitsPatch { max_bytes: Some(Some(1 << 29)), ..Default::default() };
        let (mut create, mut resize, mut destroy) = (vec![], vec![], vec![]);
        for round in 0..200u64 {
            let start = Instant::now();
            // As the balancer does it: on a copy, which becomes the tree.
            let mut next = tree.clone();
            next.place(&new, limits()).expect("there is room");
            tree = next;
            let owner = tree.get(&new).expect("just made").owner;
            let by = User { guest: GuestId(1), container: ContainerId(owner) };
            system.touch(Run { first: round * 4096, count: 512 }, by, Kind::Private);
            create.push(start.elapsed().as_nanos() as f64);

            system.touch(Run { first: round * 4096 + 512, count: 4096 - 512 }, by, Kind::Private);
            let start = Instant::now();
            let mut next = tree.clone();
            next.alter(&new, &patch).expect("it is there");
            assert!(next.broken(&new).is_empty(), "it fits");
            tree = next;
            let limit = tree.get(&new).and_then(|node| node.limits.ceiling_bytes()).unwrap_or(0);
            black_box(system.enforceable(ContainerId(owner)) / UNITS_PER_FRAME * 4096 > limit);
            resize.push(start.elapsed().as_nanos() as f64);

            system.unshare(Run { first: round * 4096, count: 4096 }, GuestId(1));
            let start = Instant::now();
            let mut next = tree.clone();
            next.remove(&new, 0).expect("it is empty");
            tree = next;
            system.remove(ContainerId(owner));
            destroy.push(start.elapsed().as_nanos() as f64);
        }
        Self { create_ns: median(create), resize_ns: median(resize), destroy_ns: median(destroy) }
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    round(samples[samples.len() / 2])
}
