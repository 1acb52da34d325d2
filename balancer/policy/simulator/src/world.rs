//! A host with its guests.

use super::governor::Target;
use super::guest::{BOOT_MS, Kind, SimGuest, Step};
use policy::{ContainerView, GuestView, Health, HostView, Observation, OutOfMemory};
use protocol::limits::{Limits, WEIGHT_DEFAULT};
use protocol::path::ContainerPath;

/// What a guest needs to live, bytes.
pub const FLOOR_BYTES: u64 = 64 << 20;
/// The overhead of its `vmm`, bytes.
pub const OVERHEAD_BYTES: u64 = 8 << 20;

/// A host with its guests.
#[derive(Debug, Clone)]
pub struct World {
    /// What a governor sees of it.
    pub observation: Observation,
    /// The guests, in the order of the observation.
    pub guests: Vec<SimGuest>,
    /// What other processes on the host use, by time: milliseconds and bytes.
    pub others: Vec<(u64, u64)>,
    /// Ticks in which the host had nothing left.
    pub host_oom_ticks: u64,
    /// When something last changed that targets depend on.
    pub disturbed_at_ms: u64,
    total_bytes: u64,
    taken_by_others: u64,
    /// Use and page cache of each guest when they last changed by much.
    reported: Vec<(u64, u64)>,
    /// Whether each guest was short of memory, and its health.
    marks: Vec<(bool, Health)>,
}

impl World {
    /// A host with this much memory and no guests.
    #[must_use]
    pub fn new(total_bytes: u64) -> Self {
        let limits = Limits::default();
        let root = ContainerView { path: ContainerPath::root(), parent: 0, limits, charged_bytes: 0 };
        Self {
            observation: Observation { containers: vec![root], ..Default::default() },
            guests: vec![],
            others: vec![],
            host_oom_ticks: 0,
            disturbed_at_ms: 0,
            total_bytes,
            taken_by_others: 0,
            reported: vec![],
            marks: vec![],
        }
    }

    /// Adds a container inside another and returns its index.
    ///
    /// # Panics
    /// If the name is not valid.
    pub fn container(&mut self, parent: usize, name: &str, limits: Limits) -> usize {
        let above = self.observation.containers[parent].path.as_str().trim_end_matches('/').to_owned();
        let path = format!("{above}/{name}").parse().expect("a valid name");
        self.observation.containers.push(ContainerView { path, parent, limits, charged_bytes: 0 });
        self.observation.containers.len() - 1
    }

    /// Adds a guest and returns its index. It has a container of its own with these limits; with the default limits
    /// it is directly in the parent, unless that is the root.
    pub fn guest(&mut self, parent: usize, limits: Limits, guest: SimGuest) -> usize {
        let at = self.guests.len();
        let container = match limits == Limits::default() && parent != 0 {
            true => parent,
            false => self.container(parent, &format!("g{at}"), limits),
        };
        let ram_bytes = guest.actual_bytes;
        self.observation.guests.push(GuestView {
            name: format!("g{at}"),
            container,
            ram_bytes,
            floor_bytes: FLOOR_BYTES.min(ram_bytes),
            overhead_bytes: OVERHEAD_BYTES,
            usage_bytes: 0,
            actual_bytes: ram_bytes,
            refaulted_bytes: 0,
            has_balloon: true,
            driver_ready: false,
            statistics: None,
            out_of_memory: OutOfMemory::No,
            ceiling: None,
            memory: Default::default(),
        });
        self.guests.push(guest);
        self.reported.push((0, 0));
        self.marks.push((false, Health::Well));
        at
    }

    /// Limits with a weight alone.
    #[must_use]
    pub fn weight(weight: u32) -> Limits {
        Limits { weight, ..Default::default() }
    }

    /// Limits that change next to nothing and still give a guest a container of its own.
    #[must_use]
    pub fn plain() -> Limits {
        Self::weight(WEIGHT_DEFAULT + 1)
    }

    /// Lets the time between two ticks pass: guests move towards their targets.
    pub fn pass(&mut self, targets: &[Target]) {
        let passed_ms = self.observation.knobs.interval_ms;
        self.observation.now_ms += passed_ms;
        let now_ms = self.observation.now_ms;
        let mut disturbed = false;
        let mut usage = 0u64;
        for (i, guest) in self.guests.iter_mut().enumerate() {
            let view = &mut self.observation.guests[i];
            let before = (view.held_bytes(), view.out_of_memory, view.fresh().is_some());
            let target = targets.get(i).copied().unwrap_or(Target::of(view.ram_bytes));
            disturbed |= guest.pass(Step { now_ms, passed_ms }, target, view);
            usage = usage.saturating_add(view.usage_bytes).saturating_add(view.overhead_bytes);
            // A slow guest is itself a disturbance; so is a guest that stalls or reports a new demand.
            let slow = !matches!(guest.kind, Kind::Ideal | Kind::WithoutStatistics)
                && view.held_bytes().abs_diff(before.0) > 1 << 20;
            let now = (guest.used_bytes, guest.cache_bytes);
            let known = &mut self.reported[i];
            let differs = now.0.abs_diff(known.0) > known.0 / 64
                || now.1.abs_diff(known.1) > (known.1 / 64).max(4 << 20);
            if differs {
                *known = now;
            }
            // The begin and the end of a stall are disturbances as well.
            let stressed = view.memory.stressed_until_ms > now_ms;
            let mark = (stressed, view.memory.health);
            let memory = &view.memory;
            let owes = memory.owes_since_ms.is_some() && !memory.health.is_excluded();
            let state = (before.1, before.2) != (view.out_of_memory, view.fresh().is_some());
            disturbed |=
                slow || differs || owes || state || std::mem::replace(&mut self.marks[i], mark) != mark;
        }
        let others = self.others.iter().take_while(|(at, _)| *at <= now_ms).last();
        disturbed |= others.is_some_and(|(at, _)| now_ms - at < passed_ms);
        self.taken_by_others = others.map_or(0, |(_, bytes)| *bytes);
        let mut taken = usage.saturating_add(self.taken_by_others);
        let stalled = taken > self.total_bytes;
        self.host_oom_ticks += u64::from(stalled);
        // The kernel kills the guest that holds most, until there is enough.
        while taken > self.total_bytes {
            let holds = |i: &usize| self.observation.guests[*i].usage_bytes;
            let Some(victim) = (0..self.guests.len()).filter(|i| holds(i) > 0).max_by_key(holds) else {
                break;
            };
            taken -= holds(&victim);
            self.guests[victim].kill(now_ms, &mut self.observation.guests[victim]);
            disturbed = true;
        }
        if disturbed || now_ms <= BOOT_MS + passed_ms {
            self.disturbed_at_ms = now_ms;
        }
        self.observation.host = Some(HostView {
            total_bytes: self.total_bytes,
            available_bytes: self.total_bytes.saturating_sub(taken),
            age_ms: 0,
            stalled_age_ms: stalled.then_some(0),
        });
    }

    /// True if what programs need in all guests fits into the host together.
    #[must_use]
    pub fn fits(&self) -> bool {
        let least = self.guests.iter().zip(&self.observation.guests);
        let least = least
            .fold(self.taken_by_others, |sum, (guest, view)| sum + guest.least_bytes() + view.overhead_bytes);
        least <= self.total_bytes
    }
}
