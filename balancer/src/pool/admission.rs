//! Who gets a granule of a managed image, and what goes for it.
//!
//! The budget is hard: it is the `max` of the container that pays for the image, or of the pool's own, and no granule is
//! filled beyond it. Where it is reached, the first of these goes:
//!
//! 1. the oldest granule that nobody holds;
//! 2. if the asking domain holds less than its part of the budget: the oldest of the domain that holds most beyond its own;
//! 3. if the asking guest holds less than its part of its domain's: the oldest that a guest beyond its part holds alone;
//! 4. the oldest that the asking guest holds alone.
//!
//! So nobody loses pages to a guest that has its part already, however many guests that has beside it: a domain's part is the budget
//! divided by the domains that share it, a guest's is that divided by the guests of the domain. Inside a domain, and only
//! there, a guest of which every granule is held by others as well takes the oldest of these.
//!
//! Filling costs the disk, which all share: each guest may fill [`FILL_BURST`] granules at once and [`FILL_RATE`] a second.

use super::backing::PoolBacking;
use super::granules::Place;
use super::image::{Key, PoolImage};
use super::images::Pool;
use super::ledger::Seen;
use super::managed::pages_of;
use accounting::{ContainerId, POOL, System, UNITS_PER_FRAME};
use protocol::bytes::FRAME_BYTES;
use protocol::domain::Domain;
use protocol::image::GRANULE_BYTES;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Granules that a guest may have filled at once: 256 MiB, more than a root file system touches while it boots.
pub const FILL_BURST: u32 = 4096;
/// And in each second: 128 MiB, a part of what a disk gives, so that one guest that thrashes leaves others the most of it. It
/// costs the balancer about 10 % of a CPU, at 50 us for each granule.
pub const FILL_RATE: u32 = 2048;
/// Granules that go at a time where a budget became smaller.
const SHRINK_AT_ONCE: u64 = 256;
/// A guest that waits for room and was not heard of for so long waits no more.
const WAITS: Duration = Duration::from_millis(500);
/// How long a guest may take to let go.
pub const UNMAP_DEADLINE: Duration = Duration::from_secs(2);

/// What becomes of a question for a granule.
#[derive(Debug)]
pub enum Asked {
    /// It is there, and the guest holds it from now on.
    There,
    /// There is room for it: it is to be filled, and then [`Pool::filled`].
    Fill(Arc<dyn PoolBacking>),
    /// The guest filled enough: to be asked again after this.
    Later(Duration),
    /// Somebody else fills it, or lets go for it: to be asked again when something changed.
    Wait,
    /// Nothing can go for it.
    Full,
    /// There is no such granule, or the guest does not map the image.
    Unknown,
}

/// A guest is to let go of a granule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetGo {
    /// The guest, by the order in which it registered.
    pub order: u64,
    /// The image.
    pub key: Key,
    /// The granule.
    pub granule: u64,
}

/// What a guest may still fill.
#[derive(Debug)]
pub(super) struct Fills {
    left: u32,
    at: Instant,
}

impl Fills {
    /// Takes one, or says when there will be one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let each = Duration::from_secs(1) / FILL_RATE;
        let gained = now.saturating_duration_since(self.at).as_nanos() / each.as_nanos();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(gained).min(FILL_BURST);
        self.at = if self.left == FILL_BURST { now } else { self.at + each * gained };
        self.left =
            self.left.checked_sub(1).ok_or_else(|| (self.at + each).saturating_duration_since(now))?;
        Ok(())
    }
}

enum Room {
    There,
    Coming(Vec<LetGo>),
    None,
}

impl Pool {
    /// A guest asks for a granule of an image whose payer may hold so many bytes. Returns what becomes of it, and who is to let
    /// go of what.
    pub fn ask(
        &mut self,
        order: u64,
        key: &Key,
        granule: u64,
        budget_bytes: Option<u64>,
        now: Instant,
    ) -> (Asked, Vec<LetGo>) {
        let Some((image, backing)) = self.managed(key, order) else { return (Asked::Unknown, vec![]) };
        if granule >= backing.bytes() / GRANULE_BYTES {
            return (Asked::Unknown, vec![]);
        }
        match image.granules.place(granule) {
            Some(Place::There) => {
                self.hold(order, key, granule);
                return (Asked::There, vec![]);
            }
            Some(Place::Filling | Place::Leaving(_)) => return (Asked::Wait, vec![]),
            None => {}
        }
        let payer = image.bound.unwrap_or(POOL);
        match self.room(order, key, payer, budget_bytes, now) {
            Room::None => return (Asked::Full, vec![]),
            Room::Coming(orders) => return (Asked::Wait, orders),
            Room::There => {}
        }
        let fills = self.fills.entry(order).or_insert(Fills { left: FILL_BURST, at: now });
        if let Err(wait) = fills.take(now) {
            return (Asked::Later(wait), vec![]);
        }
        if let Some(image) = self.images.get_mut(key) {
            image.granules.begin(granule);
        }
        (Asked::Fill(backing), vec![])
    }

    /// A granule was filled for a guest, or could not be.
    pub fn filled(
        &mut self,
        order: u64,
        key: &Key,
        granule: u64,
        backing: &Arc<dyn PoolBacking>,
        done: bool,
    ) {
        let turn = self.turn();
        let Some(image) = self.images.get_mut(key) else { return };
        // Another one may have come in its place.
        if !Arc::ptr_eq(&image.backing, backing) || image.granules.place(granule) != Some(Place::Filling) {
            return;
        }
        if !done {
            image.granules.free(granule);
            return;
        }
        image.granules.filled(granule, turn);
        let resident = Some(image.ledger.resident().clone().with(pages_of(granule)));
        image.ledger.apply(&Seen { resident, ..Seen::default() });
        self.hold(order, key, granule);
    }

    /// A guest does not map a granule any more. True if somebody may wait for its room.
    pub fn unmapped(&mut self, order: u64, key: &Key, granule: u64) -> bool {
        let Some(image) = self.images.get_mut(key) else { return false };
        if !image.granules.unmapped(granule, order) {
            return false;
        }
        if let Some(pages) = image.ledger.mapped_by(order) {
            let pages = pages.without(pages_of(granule));
            image.ledger.apply(&Seen { resident: None, mapped: [(order, pages)].into() });
        }
        if image.granules.is_free(granule) {
            image.free(granule);
        }
        self.settle(key);
        true
    }

    /// A guest maps nothing of its managed images.
    pub fn release(&mut self, order: u64) {
        for image in self.images.values_mut().filter(|image| image.is_managed()) {
            let held = image.granules.of(order);
            if held.is_empty() {
                continue;
            }
            for granule in held {
                image.granules.unmapped(granule, order);
                if image.granules.is_free(granule) {
                    image.free(granule);
                }
            }
            let none = super::PageSet::new(image.ledger.resident().pages());
            image.ledger.apply(&Seen { resident: None, mapped: [(order, none)].into() });
        }
        self.recount();
    }

    /// Guests that were told to let go and did not in time.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> Vec<u64> {
        let Some(before) = now.checked_sub(UNMAP_DEADLINE) else { return vec![] };
        let mut late: Vec<u64> =
            self.images.values().flat_map(|image| image.granules.overdue(before)).collect();
        late.sort_unstable();
        late.dedup();
        late
    }

    /// Payers of managed images.
    #[must_use]
    pub fn payers_of_managed(&self) -> Vec<ContainerId> {
        let managed = self.images.values().filter(|image| image.is_managed());
        let mut payers: Vec<ContainerId> = managed.map(|image| image.bound.unwrap_or(POOL)).collect();
        payers.sort_unstable();
        payers.dedup();
        payers
    }

    /// What a payer's managed images hold is to be no more than this: what nobody holds goes at once, and of the rest those who hold
    /// the most beyond their part are told to let go.
    pub fn shrink(&mut self, payer: ContainerId, budget_bytes: u64, now: Instant) -> Vec<LetGo> {
        let budget = budget_bytes / GRANULE_BYTES;
        let mut orders = Vec::new();
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
            orders.extend(self.let_go(&key, granule, now));
        }
        self.recount();
        orders
    }

    /// Lets go of so much of a payer's managed images that nobody holds, the oldest first. Returns what is left to do.
    pub(super) fn evict_managed(&mut self, payer: ContainerId, bytes: u64) -> u64 {
        let mut left = bytes;
        while left > 0 && self.free_unheld(payer) {
            left = left.saturating_sub(GRANULE_BYTES);
        }
        left
    }

    /// Granules of a payer's managed images: all that take room, and those of them that are leaving.
    fn granules_of(&self, payer: ContainerId) -> (u64, u64) {
        let sums = self.paid_by(payer).map(|(_, image)| (image.granules.count(), image.granules.leaving()));
        sums.fold((0, 0), |sum, (count, leaving)| (sum.0 + count, sum.1 + leaving))
    }

    fn paid_by(&self, payer: ContainerId) -> impl Iterator<Item = (&Key, &PoolImage)> {
        let images = self.images.iter();
        images.filter(move |(_, image)| image.is_managed() && image.bound.unwrap_or(POOL) == payer)
    }

    /// A managed image that a guest maps.
    fn managed(&self, key: &Key, order: u64) -> Option<(&PoolImage, Arc<dyn PoolBacking>)> {
        let image = self.images.get(key)?;
        let maps = image.is_managed() && image.sharers.contains_key(&order);
        maps.then(|| (image, Arc::clone(&image.backing)))
    }

    fn turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn hold(&mut self, order: u64, key: &Key, granule: u64) {
        let turn = self.turn();
        let Some(image) = self.images.get_mut(key) else { return };
        // It may have left while the granule was filled.
        let Some(pages) = image.ledger.mapped_by(order) else { return };
        let pages = pages.clone().with(pages_of(granule));
        image.granules.hold(granule, order, turn);
        image.ledger.apply(&Seen { resident: None, mapped: [(order, pages)].into() });
        self.settle(key);
    }

    /// The books of an image changed.
    fn settle(&mut self, key: &Key) {
        if let Some(image) = self.images.get(key)
            && self.system != System::Rss
        {
            self.uncharged_frames += image.ledger.unbalanced().div_ceil(UNITS_PER_FRAME);
        }
        self.recount();
    }

    /// Makes room for one granule.
    fn room(
        &mut self,
        order: u64,
        key: &Key,
        payer: ContainerId,
        budget_bytes: Option<u64>,
        now: Instant,
    ) -> Room {
        let Some(budget) = budget_bytes.map(|bytes| bytes / GRANULE_BYTES) else { return Room::There };
        let held = self.held_by_domain(payer);
        let part = budget / (held.len() as u64).max(1);
        let has_its_part = held.get(&key.domain).copied().unwrap_or(0) >= part;
        self.waiting.retain(|_, since| now.saturating_duration_since(*since) < WAITS);
        loop {
            let (count, leaving) = self.granules_of(payer);
            if count < budget {
                // What others let go for somebody is not for who has his part.
                let others_wait = self.waiting.keys().any(|other| *other != order);
                if has_its_part && others_wait {
                    return Room::Coming(vec![]);
                }
                self.waiting.remove(&order);
                return Room::There;
            }
            if self.free_unheld(payer) {
                continue;
            }
            if !has_its_part {
                self.waiting.insert(order, now);
            }
            if count - leaving < budget {
                return Room::Coming(vec![]);
            }
            let Some((key, granule)) = self.victim(order, &key.domain, payer, budget) else {
                return Room::None;
            };
            return Room::Coming(self.let_go(&key, granule, now));
        }
    }

    /// Lets the oldest granule go that nobody holds. False if there is none.
    fn free_unheld(&mut self, payer: ContainerId) -> bool {
        let oldest = self.paid_by(payer).filter_map(|(key, image)| Some((image.granules.oldest(None)?, key)));
        let Some(((_, granule), key)) = oldest.min_by_key(|((turn, _), _)| *turn) else { return false };
        let key = key.clone();
        if let Some(image) = self.images.get_mut(&key) {
            image.free(granule);
        }
        self.settle(&key);
        true
    }

    fn let_go(&mut self, key: &Key, granule: u64, now: Instant) -> Vec<LetGo> {
        let Some(image) = self.images.get_mut(key) else { return vec![] };
        let holders = image.granules.leave(granule, now);
        holders.into_iter().map(|order| LetGo { order, key: key.clone(), granule }).collect()
    }

    /// Which granule goes for a guest of a domain, by the rules above from the second on.
    fn victim(&self, order: u64, domain: &Domain, payer: ContainerId, budget: u64) -> Option<(Key, u64)> {
        let held = self.held_by_domain(payer);
        let part = budget / (held.len() as u64).max(1);
        if held.get(domain).copied().unwrap_or(0) < part {
            let beyond = held.iter().filter(|(other, held)| *other != domain && **held > part);
            if let Some((other, _)) = beyond.max_by_key(|(_, held)| **held) {
                return self.oldest_of_domain(payer, other);
            }
        }
        let alone = self.held_alone_in(payer, domain);
        let part = part / (alone.len() as u64).max(1);
        let own = alone.get(&order).copied().unwrap_or(0);
        if own < part {
            let beyond = alone.iter().filter(|(other, held)| **other != order && **held > part);
            if let Some((other, _)) = beyond.max_by_key(|(_, held)| **held) {
                return self.oldest_alone(payer, *other);
            }
        }
        self.oldest_alone(payer, order).or_else(|| self.oldest_of_domain(payer, domain))
    }

    /// Granules that take room for the guests of each domain, each once; domains whose guests map images of a payer are all there.
    fn held_by_domain(&self, payer: ContainerId) -> BTreeMap<Domain, u64> {
        let mut held = BTreeMap::new();
        for (key, image) in self.paid_by(payer).filter(|(_, image)| !image.sharers.is_empty()) {
            *held.entry(key.domain.clone()).or_default() += image.granules.taken();
        }
        held
    }

    /// Granules that each guest of a domain holds alone.
    fn held_alone_in(&self, payer: ContainerId, domain: &Domain) -> BTreeMap<u64, u64> {
        let mut alone = BTreeMap::new();
        for (_, image) in self.paid_by(payer).filter(|(key, _)| key.domain == *domain) {
            for order in image.sharers.keys() {
                *alone.entry(*order).or_default() += image.granules.held_alone(*order);
            }
        }
        alone
    }

    fn oldest_of_domain(&self, payer: ContainerId, domain: &Domain) -> Option<(Key, u64)> {
        let images = self.paid_by(payer).filter(|(key, _)| key.domain == *domain);
        let oldest = images.filter_map(|(key, image)| Some((image.granules.oldest_held()?, key)));
        oldest.min_by_key(|((turn, _), _)| *turn).map(|((_, granule), key)| (key.clone(), granule))
    }

    fn oldest_alone(&self, payer: ContainerId, order: u64) -> Option<(Key, u64)> {
        let images = self.paid_by(payer);
        let oldest = images.filter_map(|(key, image)| Some((image.granules.oldest(Some(order))?, key)));
        oldest.min_by_key(|((turn, _), _)| *turn).map(|((_, granule), key)| (key.clone(), granule))
    }
}

impl PoolImage {
    /// True if the balancer fills it.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.backing.as_managed().is_some()
    }

    /// A granule goes that nobody holds.
    pub(super) fn free(&mut self, granule: u64) {
        if let Some(managed) = self.backing.as_managed()
            && let Err(error) = managed.punch(granule)
        {
            // Its room stays taken, so that the budget stays true.
            tracing::error!(granule, %error, "a granule cannot be given back");
            return;
        }
        self.granules.free(granule);
        let resident = Some(self.ledger.resident().without(pages_of(granule)));
        self.ledger.apply(&Seen { resident, ..Seen::default() });
    }

    /// Throws out what is in a managed image's memory and in nobody's books, and says how much that was, bytes. A `vmm` put it
    /// there by reading what it was not given.
    pub(super) fn throw_out(&self) -> std::io::Result<u64> {
        let Some(managed) = self.backing.as_managed() else { return Ok(0) };
        if managed.held_bytes()? <= self.granules.count() * GRANULE_BYTES {
            return Ok(0);
        }
        let known =
            self.granules.iter().fold(super::PageSet::new(managed.bytes() / FRAME_BYTES), |set, granule| {
                set.with(pages_of(granule))
            });
        let foreign = self.backing.resident()?.minus(&known);
        for run in foreign.runs() {
            self.backing.evict(run)?;
        }
        Ok(foreign.count() * FRAME_BYTES)
    }
}

#[cfg(test)]
#[path = "admission_test.rs"]
mod tests;
