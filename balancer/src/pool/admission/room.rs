//! Room for one more granule: is there any, and which granule makes room?

use super::super::image::Key;
use super::super::images::Pool;
use super::super::numbers::{GranuleIndex, GuestSeq, Touch};
use super::Eviction;
use accounting::ContainerId;
use protocol::domain::Domain;
use protocol::image::GRANULE_BYTES;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A waiting guest that did not ask for this long loses its place.
const WAITING_MAX: Duration = Duration::from_millis(500);

pub(super) enum Room {
    /// For one granule.
    There,
    /// Once guests have unmapped, these or earlier ones.
    Coming(Vec<Eviction>),
    /// Nothing can be evicted.
    None,
}

impl Pool {
    /// Makes room for one granule.
    pub(super) fn room(
        &mut self,
        guest: GuestSeq,
        key: &Key,
        payer: ContainerId,
        budget_bytes: Option<u64>,
        now: Instant,
    ) -> Room {
        let Some(budget) = budget_bytes.map(|bytes| bytes / GRANULE_BYTES) else { return Room::There };
        let held = self.held_by_domain(payer);
        let share = budget / (held.len() as u64).max(1);
        let has_its_share = held.get(&key.domain).copied().unwrap_or(0) >= share;
        self.waiting.retain(|_, since| now.saturating_duration_since(*since) < WAITING_MAX);
        loop {
            let (count, leaving) = self.granules_of(payer);
            if count < budget {
                // Pages evicted on behalf of one guest must not go to a guest that already has its share.
                let others_wait = self.waiting.keys().any(|other| *other != guest);
                if has_its_share && others_wait {
                    return Room::Coming(vec![]);
                }
                self.waiting.remove(&guest);
                return Room::There;
            }
            if self.free_unheld(payer) {
                continue;
            }
            if !has_its_share {
                self.waiting.insert(guest, now);
            }
            if count - leaving < budget {
                return Room::Coming(vec![]);
            }
            let Some((key, granule)) = self.victim(guest, &key.domain, payer, budget) else {
                return Room::None;
            };
            return Room::Coming(self.begin_eviction(&key, granule, now));
        }
    }

    /// The granule that is evicted for a guest of a domain, by the rules in the head of `admission` from the second on.
    fn victim(
        &self,
        guest: GuestSeq,
        domain: &Domain,
        payer: ContainerId,
        budget: u64,
    ) -> Option<(Key, GranuleIndex)> {
        let held = self.held_by_domain(payer);
        let share = budget / (held.len() as u64).max(1);
        if held.get(domain).copied().unwrap_or(0) < share {
            let beyond = held.iter().filter(|(other, held)| *other != domain && **held > share);
            if let Some((other, _)) = beyond.max_by_key(|(_, held)| **held) {
                return self.oldest_of_domain(payer, other);
            }
        }
        let alone = self.held_alone_in(payer, domain);
        let share = share / (alone.len() as u64).max(1);
        let own = alone.get(&guest).copied().unwrap_or(0);
        if own < share {
            let beyond = alone.iter().filter(|(other, held)| **other != guest && **held > share);
            if let Some((other, _)) = beyond.max_by_key(|(_, held)| **held) {
                return self.oldest_alone(payer, *other);
            }
        }
        self.oldest_alone(payer, guest).or_else(|| self.oldest_of_domain(payer, domain))
    }

    /// Granules that take room for the guests of each domain, each granule once. Every domain whose guests map images
    /// of the payer is there.
    pub(super) fn held_by_domain(&self, payer: ContainerId) -> BTreeMap<Domain, u64> {
        let mut held = BTreeMap::new();
        for (key, image) in self.paid_by(payer).filter(|(_, image)| !image.sharers.is_empty()) {
            *held.entry(key.domain.clone()).or_default() += image.granules.taken();
        }
        held
    }

    /// Granules that each guest of a domain holds alone.
    fn held_alone_in(&self, payer: ContainerId, domain: &Domain) -> BTreeMap<GuestSeq, u64> {
        let mut alone = BTreeMap::new();
        for (_, image) in self.paid_by(payer).filter(|(key, _)| key.domain == *domain) {
            for guest in image.sharers.keys() {
                *alone.entry(*guest).or_default() += image.granules.held_alone(*guest);
            }
        }
        alone
    }

    pub(super) fn oldest_of_domain(
        &self,
        payer: ContainerId,
        domain: &Domain,
    ) -> Option<(Key, GranuleIndex)> {
        let images = self.paid_by(payer).filter(|(key, _)| key.domain == *domain);
        oldest(images.filter_map(|(key, image)| Some((image.granules.oldest_held()?, key))))
    }

    fn oldest_alone(&self, payer: ContainerId, guest: GuestSeq) -> Option<(Key, GranuleIndex)> {
        let images = self.paid_by(payer);
        oldest(images.filter_map(|(key, image)| Some((image.granules.oldest(Some(guest))?, key))))
    }
}

/// The oldest granule of several images, each with its oldest one.
pub(super) fn oldest<'a>(
    of_images: impl Iterator<Item = ((Touch, GranuleIndex), &'a Key)>,
) -> Option<(Key, GranuleIndex)> {
    of_images.min_by_key(|((touch, _), _)| *touch).map(|((_, granule), key)| (key.clone(), granule))
}
