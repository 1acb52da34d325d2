//! Containers, guests and the host as clients see them.

use super::{Balancer, State as Inner, StateError};
use crate::guests::{Guest, GuestSeq, Sampled, age_ms};
use crate::objects::{ContainerObject, GuestObject, HostObject, MergeObject, OutOfMemoryState, RunState};
use crate::tree::{Node, TreeError};
use accounting::{Cost, Usage};
use host::ksm::Merged;
use policy::OutOfMemory;
use protocol::path::ContainerPath;
use std::collections::BTreeMap;
use std::time::Instant;

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
            trust_domain: tree.domain(path).to_string(),
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
        let held_bytes = held.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes));
        let (kernel, usage) = (guest.figures.kernel(), self.usage_of(guest, disk_cache));
        GuestObject {
            name: guest.about.name.clone(),
            container: guest.about.container.clone(),
            owner: guest.owner,
            charge_to: guest.about.charge_to.clone(),
            may_charge: guest.about.may_charge.clone(),
            charge_pending: guest.charge_pending(),
            pid: guest.pid,
            engine: guest.about.engine,
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
            disk_cache_held_bytes: guest.disk_cache.age_ms(now).map(|_| held_bytes),
            disk_cache_age_ms: guest.disk_cache.age_ms(now),
            overhead_bytes: guest.figures.overhead_bytes(),
            used_bytes: guest.used_bytes(now),
            working_set_bytes: guest.working_set(now).map(|sample| sample.value),
            working_set_age_ms: guest.working_set(now).map(|sample| sample.age_ms(now)),
            health: guest.memory.health,
            state: if guest.paused { RunState::Paused } else { RunState::Running },
            out_of_memory: guest.out_of_memory(now).into(),
            has_balloon: guest.about.has_balloon,
            balloon: guest.balloon.value.clone(),
            balloon_age_ms: guest.balloon.age_ms(now),
            statistics: guest.statistics.as_ref().map(|sample| sample.value.clone()),
            statistics_age_ms: guest
                .statistics
                .as_ref()
                .map(|sample| sample.age_ms(now).saturating_add(sample.value.age_ms)),
            merge: guest.merge.as_ref().map(|read| merge_object(read, now)),
            pool: self.pool_guest_object(guest),
            frames: guest.frames.totals(),
            ram_unseen: guest.about.ram_unseen.clone(),
            trusted: guest.cross_check.is_trusted(),
            registered_age_ms: age_ms(guest.registered_at, now),
        }
    }
}

impl From<OutOfMemory> for OutOfMemoryState {
    fn from(state: OutOfMemory) -> Self {
        match state {
            OutOfMemory::No => Self::No,
            OutOfMemory::Holding { .. } => Self::Holding,
            OutOfMemory::Returning { .. } => Self::Returning,
        }
    }
}

fn merge_object(read: &Sampled<Merged>, now: Instant) -> MergeObject {
    MergeObject {
        merging_pages: read.value.merging_pages,
        profit_bytes: read.value.profit_bytes,
        cost_bytes: read.value.cost_bytes,
        age_ms: read.age_ms(now),
    }
}
