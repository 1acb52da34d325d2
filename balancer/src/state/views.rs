//! Containers, guests and the host as clients see them.

use super::{Balancer, State as Inner, StateError};
use crate::guests::{Guest, Sampled};
use crate::objects::{ContainerObject, GuestObject, HostObject, MergeObject, OutOfMemoryState, RunState};
use crate::tree::{Node, Tree, TreeError};
use accounting::{Cost, Usage};
use policy::OutOfMemory;
use protocol::path::ContainerPath;
use std::collections::BTreeMap;
use std::time::Instant;

impl Balancer {
    /// The host.
    #[must_use]
    pub fn host(&self) -> HostObject {
        let state = self.state();
        let sum = |of: fn(&Guest) -> u64| {
            state.guests.values().fold(0u64, |sum, guest| sum.saturating_add(of(guest)))
        };
        HostObject {
            memory: state.host.memory.clone(),
            age_ms: age_ms(state.host.at),
            guests: state.guests.len(),
            containers: state.tree.iter().count(),
            guests_ram_bytes: sum(|guest| guest.about.ram_bytes),
            guests_target_bytes: sum(|guest| guest.sent_target_bytes.unwrap_or(guest.about.ram_bytes)),
            accounting: state.accounting,
            guests_usage_bytes: state
                .usage()
                .values()
                .fold(0, |sum: u64, cost| sum.saturating_add(cost.bytes)),
            frames_untiled: sum(|guest| guest.frames.totals().untiled),
            budget: state.budget,
            pool_resident_bytes: state.pool.iter().map(|(_, image)| image.resident_bytes()).sum(),
            pool_uncharged_frames: state.pool.uncharged_frames(),
            shortfalls: state.shortfalls.clone(),
            waiting: state.waiting_objects(),
            balancer_pid: std::process::id(),
            balancer_age_ms: age_ms(state.started_at),
        }
    }

    /// All containers in the order of their paths.
    #[must_use]
    pub fn containers(&self) -> Vec<ContainerObject> {
        let state = self.state();
        let usage = state.usage();
        state.tree.iter().map(|(path, node)| state.container_object(path, node, &usage)).collect()
    }

    /// A container.
    ///
    /// # Errors
    /// When there is none of this path.
    pub fn container(&self, path: &ContainerPath) -> Result<ContainerObject, StateError> {
        self.state().container(path)
    }

    /// All guests in the order of their names.
    #[must_use]
    pub fn guests(&self) -> Vec<GuestObject> {
        let state = self.state();
        let costs = state.disk_cache_costs();
        state.guests.values().map(|guest| state.guest_object(guest, &costs)).collect()
    }

    /// A guest.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn guest(&self, name: &str) -> Result<GuestObject, StateError> {
        let state = self.state();
        let guest = state.guests.get(name).ok_or_else(|| StateError::NoGuest(name.to_owned()))?;
        Ok(state.guest_object(guest, &state.disk_cache_costs()))
    }
}

impl Inner {
    pub(super) fn container(&self, path: &ContainerPath) -> Result<ContainerObject, StateError> {
        let node = self.tree.get(path).ok_or_else(|| TreeError::Missing(path.clone()))?;
        Ok(self.container_object(path, node, &self.usage()))
    }

    fn container_object(&self, path: &ContainerPath, node: &Node, usage: &Usage) -> ContainerObject {
        let cost = self.usage_inside(usage, path);
        let inside = || self.guests.values().filter(|guest| Tree::is_inside(&guest.about.container, path));
        let sum = |of: fn(&Guest) -> u64| inside().fold(0u64, |sum, guest| sum.saturating_add(of(guest)));
        ContainerObject {
            path: path.clone(),
            limits: node.limits.clone(),
            transient: node.transient,
            owner: node.owner,
            trust_domain: self.tree.domain(path).to_string(),
            usage_bytes: cost.bytes,
            usage_error_bytes: cost.error_bytes,
            usage_age_ms: inside()
                .flat_map(|guest| {
                    let kernel = guest.figures.kernel().map(|kernel| age_ms(kernel.at));
                    let look = guest.look.as_ref().map(|look| age_ms(look.at));
                    kernel.into_iter().chain(look).chain(guest.disk_cache.age_ms())
                })
                .max(),
            target_bytes: sum(|guest| guest.sent_target_bytes.unwrap_or(guest.about.ram_bytes)),
            objects: self.objects_object(path, node),
            guests: inside()
                .filter(|guest| guest.about.container == *path)
                .map(|guest| guest.about.name.clone())
                .collect(),
            containers: self.tree.children(path).map(|(child, _)| child.clone()).collect(),
            shortfall: self.shortfalls.iter().find(|shortfall| shortfall.container == *path).cloned(),
        }
    }

    fn guest_object(&self, guest: &Guest, disk_cache_costs: &BTreeMap<&str, Cost>) -> GuestObject {
        let disk_cache = disk_cache_costs.get(guest.about.name.as_str()).copied().unwrap_or_default();
        let held = guest.disk_cache.files(self.host.memory.page_cache_bytes());
        let frames = guest.frames.totals();
        let kernel = guest.figures.kernel();
        let out_of_memory = match guest.out_of_memory() {
            OutOfMemory::No => OutOfMemoryState::No,
            OutOfMemory::Holding { .. } => OutOfMemoryState::Holding,
            OutOfMemory::Returning { .. } => OutOfMemoryState::Returning,
        };
        GuestObject {
            name: guest.about.name.clone(),
            container: guest.about.container.clone(),
            owner: guest.owner,
            charge_to: guest.about.charge_to.clone(),
            may_charge: guest.about.may_charge.clone(),
            charge_pending: guest.order_pending(),
            pid: guest.pid,
            engine: guest.about.engine,
            machine_pid: guest.about.machine.map(|machine| machine.pid),
            attached: guest.about.machine.is_some_and(|machine| machine.attached),
            stuck: guest.stuck.as_ref().map(|stuck| stuck.value.clone()),
            stuck_age_ms: guest.stuck.as_ref().map(Sampled::age_ms),
            cpus: guest.about.cpus,
            devices: guest.about.devices,
            fds: guest.objects().fds,
            threads: guest.objects().threads,
            ram_bytes: guest.about.ram_bytes,
            floor_bytes: guest.about.floor_bytes,
            target_bytes: guest.sent_target_bytes.unwrap_or(guest.about.ram_bytes),
            target_reason: guest.target_reason.clone(),
            actual_bytes: guest.balloon.value.actual_bytes,
            usage_bytes: self.usage_of(guest, disk_cache).bytes,
            resident_bytes: kernel.map(|kernel| kernel.resident_bytes),
            resident_age_ms: kernel.map(|kernel| age_ms(kernel.at)),
            page_tables_bytes: kernel.map(|kernel| kernel.page_tables_bytes),
            disk_cache_bytes: disk_cache.bytes,
            disk_cache_error_bytes: disk_cache.error_bytes,
            disk_cache_held_bytes: guest
                .disk_cache
                .age_ms()
                .map(|_| held.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes))),
            disk_cache_age_ms: guest.disk_cache.age_ms(),
            overhead_bytes: guest.figures.overhead_bytes(),
            used_bytes: guest.used_bytes(),
            working_set_bytes: guest.working_set().map(|sample| sample.value),
            working_set_age_ms: guest.working_set().map(Sampled::age_ms),
            health: guest.memory.health,
            state: if guest.paused { RunState::Paused } else { RunState::Running },
            out_of_memory,
            has_balloon: guest.about.has_balloon,
            balloon: guest.balloon.value.clone(),
            balloon_age_ms: guest.balloon.age_ms(),
            statistics: guest.statistics.as_ref().map(|sample| sample.value.clone()),
            statistics_age_ms: guest
                .statistics
                .as_ref()
                .map(|sample| sample.age_ms().saturating_add(sample.value.age_ms)),
            merge: guest.merge.as_ref().map(|read| MergeObject {
                merging_pages: read.value.merging_pages,
                profit_bytes: read.value.profit_bytes,
                cost_bytes: read.value.cost_bytes,
                age_ms: read.age_ms(),
            }),
            pool: self.pool_guest_object(guest),
            frames,
            ram_unseen: guest.about.ram_unseen.clone(),
            trusted: guest.cross_check.is_trusted(),
            registered_age_ms: age_ms(guest.registered_at),
        }
    }
}

fn age_ms(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX)
}
