//! How a granule leaves memory: at once if no guest holds it, otherwise after all its holders have unmapped it.

use super::super::PageSet;
use super::super::backing::PoolBacking;
use super::super::image::{Key, PoolImage};
use super::super::images::Pool;
use super::super::ledger::Seen;
use super::super::managed::pages_of;
use super::super::numbers::GranuleIndex;
use super::Eviction;
use super::room::oldest;
use accounting::ContainerId;
use protocol::bytes::FRAME_BYTES;
use protocol::image::GRANULE_BYTES;
use std::time::Instant;

/// Most granules that are evicted at a time when a budget became smaller.
const SHRINK_AT_ONCE: u64 = 256;

impl Pool {
    /// A payer's managed images may hold no more than this. Granules that no guest holds are evicted at once; then the
    /// domains that hold most are told to unmap their oldest ones.
    pub fn shrink(&mut self, payer: ContainerId, budget_bytes: u64, now: Instant) -> Vec<Eviction> {
        let budget = budget_bytes / GRANULE_BYTES;
        let mut evictions = Vec::new();
        for _ in 0..SHRINK_AT_ONCE {
            let (count, leaving) = self.granules_of(payer);
            if count - leaving <= budget {
                break;
            }
            if self.free_unheld(payer) {
                continue;
            }
            let held = self.held_by_domain(payer);
            let most = held.iter().max_by_key(|(_, held)| **held).map(|(domain, _)| domain.clone());
            let Some((key, granule)) = most.and_then(|domain| self.oldest_of_domain(payer, &domain)) else {
                break;
            };
            evictions.extend(self.begin_eviction(&key, granule, now));
        }
        self.recount();
        evictions
    }

    /// Evicts this number of bytes of a payer's managed images that no guest holds, the oldest first. Returns the rest.
    pub(in super::super) fn evict_managed(&mut self, payer: ContainerId, bytes: u64) -> u64 {
        let mut left = bytes;
        while left > 0 && self.free_unheld(payer) {
            left = left.saturating_sub(GRANULE_BYTES);
        }
        left
    }

    /// Evicts the oldest granule that no guest holds. False if there is none.
    pub(super) fn free_unheld(&mut self, payer: ContainerId) -> bool {
        let unheld = self.paid_by(payer).filter_map(|(key, image)| Some((image.granules.oldest(None)?, key)));
        let Some((key, granule)) = oldest(unheld) else { return false };
        if let Some(image) = self.images.get_mut(&key) {
            image.free(granule);
        }
        self.settle(&key);
        true
    }

    /// Begins to evict a granule: its holders are to unmap it.
    pub(super) fn begin_eviction(&mut self, key: &Key, granule: GranuleIndex, now: Instant) -> Vec<Eviction> {
        let Some(image) = self.images.get_mut(key) else { return vec![] };
        let holders = image.granules.leave(granule, now);
        holders.into_iter().map(|guest| Eviction { guest, key: key.clone(), granule }).collect()
    }
}

impl PoolImage {
    /// Evicts a granule that no guest holds.
    pub(super) fn free(&mut self, granule: GranuleIndex) {
        if let Some(managed) = self.backing.as_managed()
            && let Err(error) = managed.punch(granule)
        {
            // Its room stays taken, so that the budget stays true.
            tracing::error!(%granule, %error, "a granule cannot be evicted");
            return;
        }
        self.granules.free(granule);
        let resident = Some(self.ledger.resident().without(pages_of(granule)));
        self.ledger.apply(&Seen { resident, ..Seen::default() });
    }

    /// Evicts pages of a managed image's memory that no granule accounts for, and returns how many bytes they were. A
    /// `vmm` put them there by reading pages that it was not given.
    pub(in super::super) fn evict_foreign(&self) -> std::io::Result<u64> {
        let Some(managed) = self.backing.as_managed() else { return Ok(0) };
        if managed.held_bytes()? <= self.granules.count() * GRANULE_BYTES {
            return Ok(0);
        }
        let none = PageSet::new(managed.bytes() / FRAME_BYTES);
        let known = self.granules.iter().fold(none, |set, granule| set.with(pages_of(granule)));
        let foreign = self.backing.resident()?.minus(&known);
        for run in foreign.runs() {
            self.backing.evict(run)?;
        }
        Ok(foreign.count() * FRAME_BYTES)
    }
}
