//! The host's page cache of guests' disks: the containers that are charged for it, and dropping it where a limit
//! needs room.

use crate::guests::{Guest, GuestSeq};
use crate::state::State;
use crate::state::registry::Registry;
use accounting::{CacheClaim, Cost, System, Usage};
use policy::{CachedView, Excess, keep};
use protocol::disk::{FileId, KeepCached};
use protocol::message::ToVmm;
use protocol::path::ContainerPath;
use std::collections::BTreeMap;
use std::time::Instant;

/// A file that guests have as a disk.
#[derive(Debug)]
struct Cached<'a> {
    /// What the host has of it by the largest claim, bytes.
    bytes: u64,
    /// True if all guests say that it cannot be dropped: one guest alone does not keep what others pay for.
    stays: bool,
    /// The guests that have it, in the order of registration, and what each is charged, bytes.
    charges: Vec<(&'a Guest, u64)>,
}

/// What the `vmm` of a guest reports of a file.
#[derive(Debug)]
struct Claim<'a> {
    guest: &'a Guest,
    bytes: u64,
    stays: bool,
}

impl<'a> Cached<'a> {
    fn new(claims: Vec<Claim<'a>>, accounting: System) -> Self {
        let claim = |claim: &Claim<'_>| CacheClaim { owner: claim.guest.owner, bytes: claim.bytes };
        let paid = accounting.divide_cache(&claims.iter().map(claim).collect::<Vec<_>>());
        Self {
            bytes: claims.iter().map(|claim| claim.bytes).max().unwrap_or(0),
            stays: claims.iter().all(|claim| claim.stays),
            charges: claims.into_iter().map(|claim| claim.guest).zip(paid).collect(),
        }
    }

    /// The first guest that pays for the file.
    fn first_payer(&self) -> Option<GuestSeq> {
        self.charges.iter().find(|(_, bytes)| *bytes > 0).map(|(guest, _)| guest.seq)
    }

    fn view(&self) -> CachedView {
        let paying = self.charges.iter().filter(|(_, bytes)| *bytes > 0);
        let payers = paying.map(|(guest, bytes)| (guest.about.container.clone(), *bytes)).collect();
        CachedView { bytes: self.bytes, payers }
    }
}

impl Registry {
    /// All files that guests have as disks, on a host that has no more page cache than this.
    fn cached_files(&self, host_bytes: u64, accounting: System) -> BTreeMap<FileId, Cached<'_>> {
        let mut claims: BTreeMap<FileId, Vec<Claim<'_>>> = BTreeMap::new();
        for guest in self.by_seq() {
            for file in guest.disk_cache.files(host_bytes) {
                let claim = Claim { guest, bytes: file.bytes, stays: file.stays };
                claims.entry(file.file).or_default().push(claim);
            }
        }
        let divided = |(file, claims)| (file, Cached::new(claims, accounting));
        claims.into_iter().map(divided).collect()
    }

    /// What each guest is charged for the page cache of its disks.
    fn disk_cache_costs(&self, host_bytes: u64, accounting: System) -> BTreeMap<GuestSeq, Cost> {
        let mut costs: BTreeMap<GuestSeq, Cost> = BTreeMap::new();
        for cached in self.cached_files(host_bytes, accounting).into_values() {
            for (guest, bytes) in cached.charges {
                *costs.entry(guest.seq).or_default() += Cost { bytes, error_bytes: 0 };
            }
        }
        // Unmapped memory is not an error of a system that counts only what is mapped: it is its rule.
        if accounting != System::Rss {
            for guest in self.by_seq() {
                for file in guest.disk_cache.files(host_bytes) {
                    let error_bytes = file.error_bytes;
                    *costs.entry(guest.seq).or_default() += Cost { bytes: 0, error_bytes };
                }
            }
        }
        costs
    }
}

impl State {
    /// What each guest is charged for the page cache of its disks.
    pub(in crate::state) fn disk_cache_costs(&self) -> BTreeMap<GuestSeq, Cost> {
        self.guests.disk_cache_costs(self.host.memory().page_cache_bytes(), self.accounting)
    }

    /// Adds the page cache of disks to what the containers are charged. A guest's own container pays, also while the
    /// guest charges another one for what it touches: a disk is read for the guest as a whole.
    pub(in crate::state) fn add_disk_cache(&self, usage: &mut Usage) {
        let costs = self.disk_cache_costs();
        for guest in self.guests.by_seq() {
            if let Some(cost) = costs.get(&guest.seq) {
                *usage.entry(guest.owner).or_default() += *cost;
            }
        }
    }

    /// Has page cache dropped where a container is above its limit with it: this is the cheapest way, no guest releases
    /// anything for it. The `vmm` drops it, which has the files open.
    pub(in crate::state) fn drop_disk_caches(&mut self, now: Instant) {
        for (seq, files) in self.caches_to_drop() {
            let guest = self.guests.get_mut(seq).filter(|guest| guest.disk_cache.may_ask(now));
            let Some(guest) = guest else { continue };
            tracing::debug!(guest = guest.about.name, ?files, "page cache of its disks is dropped");
            if guest.send(ToVmm::DropDiskCache { files }) {
                guest.disk_cache.asked(now);
            }
        }
    }

    /// What each guest is to drop. Of the guests that pay for a file the first one is asked: its pages are the same
    /// for all.
    fn caches_to_drop(&self) -> BTreeMap<GuestSeq, Vec<KeepCached>> {
        let mut drops: BTreeMap<GuestSeq, Vec<KeepCached>> = BTreeMap::new();
        let host_bytes = self.host.memory().page_cache_bytes();
        let cached = self.guests.cached_files(host_bytes, self.accounting);
        let droppable: Vec<(FileId, Cached<'_>)> =
            cached.into_iter().filter(|(_, cached)| !cached.stays && cached.bytes > 0).collect();
        if droppable.is_empty() {
            return drops;
        }
        let excesses = self.excesses();
        if excesses.is_empty() {
            return drops;
        }
        let views: Vec<CachedView> = droppable.iter().map(|(_, cached)| cached.view()).collect();
        for ((file, cached), keep_bytes) in droppable.iter().zip(keep(&views, &excesses)) {
            if let Some(guest) = cached.first_payer().filter(|_| keep_bytes < cached.bytes) {
                drops.entry(guest).or_default().push(KeepCached { file: *file, keep_bytes });
            }
        }
        drops
    }

    /// Containers that are above their limits.
    fn excesses(&self) -> Vec<Excess> {
        let usage = self.usage();
        let excess = |path: &ContainerPath, ceiling: u64| {
            let bytes = self.usage_inside(&usage, path).bytes.saturating_sub(ceiling);
            (bytes > 0).then(|| Excess { container: path.clone(), bytes })
        };
        let containers = self.containers.tree().iter();
        containers.filter_map(|(path, node)| excess(path, node.limits.ceiling_bytes()?)).collect()
    }
}
