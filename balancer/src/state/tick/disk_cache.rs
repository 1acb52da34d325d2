//! The host's page cache of guests' disks: whom it is charged to, and having it dropped where a limit needs the room.

use crate::guests::Guest;
use crate::state::State;
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
    /// What there is of it by the largest claim, bytes.
    bytes: u64,
    /// True if all say that it cannot be dropped: one alone does not keep what others pay for.
    stays: bool,
    /// Who has it, in the order of registration, and what each is charged, bytes.
    charges: Vec<(&'a Guest, u64)>,
}

/// What a guest's `vmm` says of a file.
#[derive(Debug)]
struct Word<'a> {
    guest: &'a Guest,
    bytes: u64,
    stays: bool,
}

impl<'a> Cached<'a> {
    fn new(words: Vec<Word<'a>>, accounting: System) -> Self {
        let claim = |word: &Word<'_>| CacheClaim { owner: word.guest.owner, bytes: word.bytes };
        let paid = accounting.divide_cache(&words.iter().map(claim).collect::<Vec<_>>());
        Self {
            bytes: words.iter().map(|word| word.bytes).max().unwrap_or(0),
            stays: words.iter().all(|word| word.stays),
            charges: words.into_iter().map(|word| word.guest).zip(paid).collect(),
        }
    }
}

impl State {
    /// All files that guests have as disks.
    fn cached_files(&self) -> BTreeMap<FileId, Cached<'_>> {
        let mut claims: BTreeMap<FileId, Vec<Word<'_>>> = BTreeMap::new();
        let host_bytes = self.host.memory.page_cache_bytes();
        let mut guests: Vec<&Guest> = self.guests.values().collect();
        guests.sort_unstable_by_key(|guest| guest.session);
        for guest in guests {
            for file in guest.disk_cache.files(host_bytes) {
                claims.entry(file.file).or_default().push(Word {
                    guest,
                    bytes: file.bytes,
                    stays: file.stays,
                });
            }
        }
        let divided = |(file, words)| (file, Cached::new(words, self.accounting));
        claims.into_iter().map(divided).collect()
    }

    /// What each guest is charged for the page cache of its disks, by its name.
    pub(in crate::state) fn disk_cache_costs(&self) -> BTreeMap<&str, Cost> {
        let mut costs: BTreeMap<&str, Cost> = BTreeMap::new();
        for cached in self.cached_files().into_values() {
            for (guest, bytes) in cached.charges {
                *costs.entry(&guest.about.name).or_default() += Cost { bytes, error_bytes: 0 };
            }
        }
        // Unmapped memory is no error of a system that counts only what is mapped: it is its rule.
        if self.accounting != System::Rss {
            let host_bytes = self.host.memory.page_cache_bytes();
            for guest in self.guests.values() {
                for file in guest.disk_cache.files(host_bytes) {
                    let error_bytes = file.error_bytes;
                    *costs.entry(&guest.about.name).or_default() += Cost { bytes: 0, error_bytes };
                }
            }
        }
        costs
    }

    /// Adds that to what all guests cost whom. A guest's own container pays, also while it charges another one for what it
    /// touches: a disk is read for the guest as a whole.
    pub(in crate::state) fn add_disk_cache(&self, usage: &mut Usage) {
        for (name, cost) in self.disk_cache_costs() {
            *usage.entry(self.guests[name].owner).or_default() += cost;
        }
    }

    /// Has page cache dropped where a container is above its limit with it, by the cheapest word: no guest is asked.
    pub(in crate::state) fn drop_disk_caches(&mut self) {
        let now = Instant::now();
        let orders = self.drop_orders();
        for (name, files) in orders {
            let Some(guest) = self.guests.get_mut(&name).filter(|guest| guest.disk_cache.may_order(now))
            else {
                continue;
            };
            tracing::debug!(guest = name, ?files, "page cache of its disks is dropped");
            if guest.say(ToVmm::DropDiskCache { files }) {
                guest.disk_cache.ordered(now);
            }
        }
    }

    /// Who is to drop what. Of those who pay for a file the first one is told: its pages are the same for all.
    fn drop_orders(&self) -> BTreeMap<String, Vec<KeepCached>> {
        let mut orders: BTreeMap<String, Vec<KeepCached>> = BTreeMap::new();
        let droppable: Vec<(FileId, Cached<'_>)> =
            self.cached_files().into_iter().filter(|(_, cached)| !cached.stays && cached.bytes > 0).collect();
        if droppable.is_empty() {
            return orders;
        }
        let usage = self.usage();
        let excess = |path: &ContainerPath, ceiling: u64| {
            let bytes = self.usage_inside(&usage, path).bytes.saturating_sub(ceiling);
            (bytes > 0).then(|| Excess { container: path.clone(), bytes })
        };
        let excesses: Vec<Excess> =
            self.tree.iter().filter_map(|(path, node)| excess(path, node.limits.ceiling_bytes()?)).collect();
        if excesses.is_empty() {
            return orders;
        }
        let payers = |cached: &Cached<'_>| {
            let paying = cached.charges.iter().filter(|(_, bytes)| *bytes > 0);
            paying.map(|(guest, bytes)| (guest.about.container.clone(), *bytes)).collect()
        };
        let views: Vec<CachedView> = droppable
            .iter()
            .map(|(_, cached)| CachedView { bytes: cached.bytes, payers: payers(cached) })
            .collect();
        for ((file, cached), keep_bytes) in droppable.iter().zip(keep(&views, &excesses)) {
            let first = cached.charges.iter().find(|(_, bytes)| *bytes > 0);
            if let Some((guest, _)) = first.filter(|_| keep_bytes < cached.bytes) {
                orders
                    .entry(guest.about.name.clone())
                    .or_default()
                    .push(KeepCached { file: *file, keep_bytes });
            }
        }
        orders
    }
}
