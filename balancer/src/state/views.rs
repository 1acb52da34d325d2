//! The objects that clients see.

use super::{Balancer, ObjectsObject, State as Inner, StateError, WaitingObject};
use crate::guests::{Guest, GuestSeq, age_ms};
use crate::pool::PoolGuestObject;
use crate::tree::{Node, TreeError};
use accounting::{Cost, System, Usage};
use host::meminfo::HostMemory;
use policy::{Budget, Health, OutOfMemory, Shortfall};
use protocol::domain::Domain;
use protocol::frames::{State, Totals};
use protocol::limits::Limits;
use protocol::message::{Balloon, Statistics};
use protocol::path::ContainerPath;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;
use utoipa::ToSchema;

/// A container.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ContainerObject {
    /// Its path.
    #[schema(value_type = String)]
    pub path: ContainerPath,
    /// Its limits, among the other fields.
    #[serde(flatten)]
    pub limits: Limits,
    /// True if it was made for a guest and goes with the last one.
    pub transient: bool,
    /// Its id in frame tables.
    pub owner: u16,
    /// Trust domain of its guests, wherever that was set: pages of images are shared inside one alone.
    #[schema(value_type = String)]
    pub trust_domain: Domain,
    /// What it and the containers inside it are charged by the host's accounting system, bytes.
    pub usage_bytes: u64,
    /// By how much that may be too small, bytes.
    pub usage_error_bytes: u64,
    /// Age of the oldest reading in `usage_bytes`, milliseconds; `null` without guests.
    pub usage_age_ms: Option<u64>,
    /// Sum of their targets, bytes.
    pub target_bytes: u64,
    /// Objects of the kernel that the guests in it and in the containers inside it have.
    pub objects: ObjectsObject,
    /// Guests directly in it.
    pub guests: Vec<String>,
    /// Containers directly in it.
    #[schema(value_type = Vec<String>)]
    pub containers: Vec<ContainerPath>,
    /// What is missing for the floors of its guests, if anything.
    pub shortfall: Option<Shortfall>,
}

/// A guest.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct GuestObject {
    /// Its name.
    pub name: String,
    /// The container it is attached to.
    #[schema(value_type = String)]
    pub container: ContainerPath,
    /// Owner id of that container.
    pub owner: u16,
    /// The container that pays for what it touches from now on, if that is another one.
    #[schema(value_type = Option<String>)]
    pub charge_to: Option<ContainerPath>,
    /// Containers that it may charge by its own choice, and all inside them, beside those inside its own.
    #[schema(value_type = Vec<String>)]
    pub may_charge: Vec<ContainerPath>,
    /// True while its `vmm` did not confirm that it charges as it was ordered.
    pub charge_pending: bool,
    /// Process of its `vmm`.
    pub pid: i32,
    /// `kvm` or `qemu`.
    pub engine: String,
    /// The process that has its RAM, where that is not its `vmm`: QEMU.
    pub machine_pid: Option<i32>,
    /// True if somebody else started it: it can be detached, and runs on then.
    pub attached: bool,
    /// Why its machine does not answer; `null` while it does. Its target waits until it answers.
    pub stuck: Option<String>,
    /// Since when, milliseconds.
    pub stuck_age_ms: Option<u64>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Virtio devices.
    pub devices: u32,
    /// Open file descriptors of its `vmm`.
    pub fds: u64,
    /// Threads of its `vmm`.
    pub threads: u64,
    /// RAM, bytes.
    pub ram_bytes: u64,
    /// What it needs to live, bytes.
    pub floor_bytes: u64,
    /// What it was asked to hold of its RAM at most, bytes.
    pub target_bytes: u64,
    /// The rule behind the target.
    pub target_reason: String,
    /// What it holds of its RAM at most, bytes.
    pub actual_bytes: u64,
    /// What it costs by the host's accounting system, whoever pays, bytes. Where a frame table counts, the larger of
    /// the kernel's and the table's figure does.
    pub usage_bytes: u64,
    /// By how much that may be too small, bytes: pages that its process has mapped of which it is not known yet, or
    /// cannot be, whether they are of an image, and pages of images that are not in the pool's books: of images that
    /// the pool does not know, and what was mapped since the last scan.
    pub usage_error_bytes: u64,
    /// Pages that it has mapped of images that the pool does not know (`vmm --root PATH`), bytes, by its frame table.
    /// Which other processes map them is not known: they are not charged except under `rss`, and count as
    /// `overhead_bytes` under the limits of its container.
    pub other_images_bytes: u64,
    /// Resident set of its `vmm` by the kernel, bytes; `null` when the process is gone.
    pub resident_bytes: Option<u64>,
    /// Age of that reading, milliseconds.
    pub resident_age_ms: Option<u64>,
    /// Page tables that the kernel holds for its `vmm`, bytes, of the same reading; in `usage_bytes` as well, but
    /// under `rss`.
    pub page_tables_bytes: Option<u64>,
    /// What it is charged for the host's page cache of its disks by the host's accounting system, bytes; in
    /// `usage_bytes` as well.
    pub disk_cache_bytes: u64,
    /// By how much that may be too small, bytes.
    pub disk_cache_error_bytes: u64,
    /// Page cache of its disks that the host holds, shared with others or not, bytes; `null` before its `vmm` told of
    /// it.
    pub disk_cache_held_bytes: Option<u64>,
    /// Age of that reading, milliseconds.
    pub disk_cache_age_ms: Option<u64>,
    /// What its `vmm` takes beside guest RAM, bytes.
    pub overhead_bytes: u64,
    /// What it uses by its own fresh statistics, bytes.
    pub used_bytes: Option<u64>,
    /// What it used of its RAM within 4 s, by the host kernel's data access monitor (DAMON), which samples: bytes;
    /// `null` where that does not tell or is not asked (`serve --working-sets`).
    pub working_set_bytes: Option<u64>,
    /// Age of that, milliseconds.
    pub working_set_age_ms: Option<u64>,
    /// How it does what it is asked: `well`, `slow`, `stuck`, `lying`, `vanished` (its statistics stopped),
    /// `without_statistics`, `unserved` (no driver serves its balloon, 60 s after it registered) or
    /// `without_balloon`.
    pub health: Health,
    /// `running`, or `paused` while it stands still because the host starves (`oom_policy`).
    pub state: String,
    /// `no`, `holding` or `returning`: whether it took memory back because it was out of memory.
    pub out_of_memory: String,
    /// False for a machine without a balloon: it is watched and charged, and cannot be made to give memory.
    pub has_balloon: bool,
    /// The balloon as told last.
    pub balloon: Balloon,
    /// Age of that, milliseconds.
    pub balloon_age_ms: u64,
    /// The guest's statistics as told last.
    pub statistics: Option<Statistics>,
    /// Age of those, milliseconds.
    pub statistics_age_ms: Option<u64>,
    /// What the kernel merges of its RAM; `null` for a guest without `--merge`, and before the first reading.
    pub merge: Option<MergeObject>,
    /// What it maps of the shared pool; `null` for a guest without images.
    pub pool: Option<PoolGuestObject>,
    /// Frames by state, now.
    pub frames: Totals,
    /// Why nobody can tell which frames of its RAM the host holds: then all of them are `unknown`, and what it is
    /// charged is what the kernel counts for its processes. `null` where they are looked at one by one.
    pub ram_unseen: Option<String>,
    /// False once these were found to differ from the kernel's figures by more than their error: event
    /// `table_disagrees`.
    pub trusted: bool,
    /// Time since it registered, milliseconds.
    pub registered_age_ms: u64,
}

/// What the kernel merges of a guest's RAM with pages of others, or with each other (KSM), by `/proc/PID/ksm_stat`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MergeObject {
    /// Pages of the guest that are one with an equal page.
    pub merging_pages: u64,
    /// What that saves by the kernel's count, less the cost, bytes: negative if little is equal. The one copy that
    /// stays is counted for each who has it.
    pub profit_bytes: i64,
    /// Kernel memory that looking for equal pages takes for this guest, bytes: 64 for each page that is looked at.
    pub cost_bytes: u64,
    /// Age of the reading, milliseconds.
    pub age_ms: u64,
}

/// The frame table of a guest in figures.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FramesObject {
    /// The guest.
    pub guest: String,
    /// True if the states account for every frame exactly once.
    pub tiles: bool,
    /// Frames by state.
    pub totals: Totals,
    /// Why nobody can tell which frames of its RAM the host holds; `null` where they are looked at one by one.
    pub ram_unseen: Option<String>,
    /// How they are known, each with its error.
    pub sources: Vec<SourceObject>,
    /// The same counted from the summaries of 2 MiB blocks, with `blocks=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_blocks: Option<Totals>,
    /// The same counted frame by frame, with `audit=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_entries: Option<Totals>,
    /// Private frames by owner id, with `audit=true`.
    #[schema(value_type = Option<BTreeMap<String, u64>>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_by_owner: Option<BTreeMap<u16, u64>>,
}

/// How frames of some states are known.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SourceObject {
    /// The states.
    pub states: Vec<State>,
    /// True for frames of which only that is known that they have no host memory (`unknown`).
    pub unknown: bool,
    /// Whose word it is: `vmm`, which did it itself; `page_map`, the kernel's; `guest`, through QEMU.
    pub source: &'static str,
    /// How many frames.
    pub frames: u64,
    /// By how many that may be off.
    pub error_frames_max: u64,
}

/// The host.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HostObject {
    /// What the kernel says.
    #[serde(flatten)]
    pub memory: HostMemory,
    /// Age of those figures, milliseconds.
    pub age_ms: u64,
    /// Number of guests.
    pub guests: usize,
    /// Number of containers, the root included.
    pub containers: usize,
    /// RAM of all guests, bytes.
    pub guests_ram_bytes: u64,
    /// Targets of all guests, bytes.
    pub guests_target_bytes: u64,
    /// The accounting system: it says what a guest costs whom.
    pub accounting: System,
    /// What all guests and the shared pool cost, bytes.
    pub guests_usage_bytes: u64,
    /// Frames of all guests that no state accounts for. Must stay 0.
    pub frames_untiled: u64,
    /// What guests may hold together, by the last plan.
    pub budget: Option<Budget>,
    /// What the host holds of images, bytes. `GET /v1/pool` has more.
    pub pool_resident_bytes: u64,
    /// Frames of images that were charged to nobody or twice at any sample. Must stay 0.
    pub pool_uncharged_frames: u64,
    /// Limits that are smaller than the floors of the guests under them.
    pub shortfalls: Vec<Shortfall>,
    /// Guests that wait for memory (`vmm --wait`), first come, first served.
    pub waiting: Vec<WaitingObject>,
    /// Process of the balancer.
    pub balancer_pid: u32,
    /// Time since it started, milliseconds.
    pub balancer_age_ms: u64,
}

impl Balancer {
    /// The host.
    #[must_use]
    pub fn host(&self) -> HostObject {
        self.view(Inner::host_object)
    }

    /// All containers in the order of their paths.
    #[must_use]
    pub fn containers(&self) -> Vec<ContainerObject> {
        self.view(|state, now| {
            let (tree, usage) = (state.containers.tree(), state.usage());
            tree.iter().map(|(path, node)| state.container_object(path, node, &usage, now)).collect()
        })
    }

    /// A container.
    ///
    /// # Errors
    /// When there is none of this path.
    pub fn container(&self, path: &ContainerPath) -> Result<ContainerObject, StateError> {
        self.view(|state, now| state.container(path, now))
    }

    /// All guests in the order of their names.
    #[must_use]
    pub fn guests(&self) -> Vec<GuestObject> {
        self.view(|state, now| {
            let costs = state.disk_cache_costs();
            state.guests.iter().map(|guest| state.guest_object(guest, &costs, now)).collect()
        })
    }

    /// A guest.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn guest(&self, name: &str) -> Result<GuestObject, StateError> {
        self.view(|state, now| {
            let guest = state.guests.existing(name)?;
            Ok(state.guest_object(guest, &state.disk_cache_costs(), now))
        })
    }
}

impl Inner {
    fn host_object(&self, now: Instant) -> HostObject {
        let sum = |of: fn(&Guest) -> u64| {
            self.guests.by_seq().fold(0u64, |sum, guest| sum.saturating_add(of(guest)))
        };
        let usage = self.usage().into_values();
        HostObject {
            memory: self.host.memory().clone(),
            age_ms: self.host.age_ms(now),
            guests: self.guests.len(),
            containers: self.containers.tree().iter().count(),
            guests_ram_bytes: sum(|guest| guest.about.ram_bytes),
            guests_target_bytes: sum(|guest| guest.sent_target_bytes.unwrap_or(guest.about.ram_bytes)),
            accounting: self.accounting,
            guests_usage_bytes: usage.fold(0, |sum: u64, cost| sum.saturating_add(cost.bytes)),
            frames_untiled: sum(|guest| guest.frames.totals().untiled),
            budget: self.decisions.budget,
            pool_resident_bytes: self.pool.images.iter().map(|(_, image)| image.resident_bytes()).sum(),
            pool_uncharged_frames: self.pool.images.uncharged_frames(),
            shortfalls: self.decisions.shortfalls.clone(),
            waiting: self.waiters.objects(now),
            balancer_pid: std::process::id(),
            balancer_age_ms: age_ms(self.host.started_at(), now),
        }
    }

    pub(super) fn container(
        &self,
        path: &ContainerPath,
        now: Instant,
    ) -> Result<ContainerObject, StateError> {
        let node = self.containers.tree().get(path).ok_or_else(|| TreeError::Missing(path.clone()))?;
        Ok(self.container_object(path, node, &self.usage(), now))
    }

    fn container_object(
        &self,
        path: &ContainerPath,
        node: &Node,
        usage: &Usage,
        now: Instant,
    ) -> ContainerObject {
        let (tree, cost) = (self.containers.tree(), self.usage_inside(usage, path));
        let inside = || self.guests.inside(path);
        let mut shortfalls = self.decisions.shortfalls.iter();
        let sum = |of: fn(&Guest) -> u64| inside().fold(0u64, |sum, guest| sum.saturating_add(of(guest)));
        ContainerObject {
            path: path.clone(),
            limits: node.limits.clone(),
            transient: node.transient,
            owner: node.owner,
            trust_domain: tree.domain(path),
            usage_bytes: cost.bytes,
            usage_error_bytes: cost.error_bytes,
            usage_age_ms: inside()
                .flat_map(|guest| {
                    let kernel = guest.figures.kernel().map(|kernel| age_ms(kernel.at, now));
                    let scan = guest.scan.as_ref().map(|scan| age_ms(scan.at, now));
                    kernel.into_iter().chain(scan).chain(guest.disk_cache.age_ms(now))
                })
                .max(),
            target_bytes: sum(|guest| guest.sent_target_bytes.unwrap_or(guest.about.ram_bytes)),
            objects: self.objects_object(path, node, now),
            guests: inside()
                .filter(|guest| guest.about.container == *path)
                .map(|guest| guest.about.name.clone())
                .collect(),
            containers: tree.children(path).map(|(child, _)| child.clone()).collect(),
            shortfall: shortfalls.find(|shortfall| shortfall.container == *path).cloned(),
        }
    }

    fn guest_object(
        &self,
        guest: &Guest,
        disk_cache_costs: &BTreeMap<GuestSeq, Cost>,
        now: Instant,
    ) -> GuestObject {
        let disk_cache = disk_cache_costs.get(&guest.seq).copied().unwrap_or_default();
        let held = guest.disk_cache.files(self.host.memory().page_cache_bytes());
        let frames = guest.frames.totals();
        let (kernel, usage) = (guest.figures.kernel(), self.usage_of(guest, disk_cache));
        let state = match guest.out_of_memory(now) {
            OutOfMemory::No => "no",
            OutOfMemory::Holding { .. } => "holding",
            OutOfMemory::Returning { .. } => "returning",
        };
        GuestObject {
            name: guest.about.name.clone(),
            container: guest.about.container.clone(),
            owner: guest.owner,
            charge_to: guest.about.charge_to.clone(),
            may_charge: guest.about.may_charge.clone(),
            charge_pending: guest.charge_pending(),
            pid: guest.pid,
            engine: guest.about.engine.to_string(),
            machine_pid: guest.about.machine.map(|machine| machine.pid),
            attached: guest.about.machine.is_some_and(|machine| machine.attached),
            stuck: guest.stuck.as_ref().map(|stuck| stuck.value.clone()),
            stuck_age_ms: guest.stuck.as_ref().map(|stuck| stuck.age_ms(now)),
            cpus: guest.about.cpus,
            devices: guest.about.devices,
            fds: guest.objects().fds,
            threads: guest.objects().threads,
            ram_bytes: guest.about.ram_bytes,
            floor_bytes: guest.about.floor_bytes,
            target_bytes: guest.sent_target_bytes.unwrap_or(guest.about.ram_bytes),
            target_reason: guest.target_reason.clone(),
            actual_bytes: guest.balloon.value.actual_bytes,
            usage_bytes: usage.bytes,
            usage_error_bytes: usage.error_bytes,
            other_images_bytes: guest.figures.images().other_bytes(),
            resident_bytes: kernel.map(|kernel| kernel.resident_bytes),
            resident_age_ms: kernel.map(|kernel| age_ms(kernel.at, now)),
            page_tables_bytes: kernel.map(|kernel| kernel.page_tables_bytes),
            disk_cache_bytes: disk_cache.bytes,
            disk_cache_error_bytes: disk_cache.error_bytes,
            disk_cache_held_bytes: guest
                .disk_cache
                .age_ms(now)
                .map(|_| held.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes))),
            disk_cache_age_ms: guest.disk_cache.age_ms(now),
            overhead_bytes: guest.figures.overhead_bytes(),
            used_bytes: guest.used_bytes(now),
            working_set_bytes: guest.working_set(now).map(|sample| sample.value),
            working_set_age_ms: guest.working_set(now).map(|sample| sample.age_ms(now)),
            health: guest.memory.health,
            state: if guest.paused { "paused" } else { "running" }.into(),
            out_of_memory: state.into(),
            has_balloon: guest.about.has_balloon,
            balloon: guest.balloon.value.clone(),
            balloon_age_ms: guest.balloon.age_ms(now),
            statistics: guest.statistics.as_ref().map(|sample| sample.value.clone()),
            statistics_age_ms: guest
                .statistics
                .as_ref()
                .map(|sample| sample.age_ms(now).saturating_add(sample.value.age_ms)),
            merge: guest.merge.as_ref().map(|read| MergeObject {
                merging_pages: read.value.merging_pages,
                profit_bytes: read.value.profit_bytes,
                cost_bytes: read.value.cost_bytes,
                age_ms: read.age_ms(now),
            }),
            pool: self.pool_guest_object(guest),
            frames,
            ram_unseen: guest.about.ram_unseen.clone(),
            trusted: guest.cross_check.is_trusted(),
            registered_age_ms: age_ms(guest.registered_at, now),
        }
    }
}
