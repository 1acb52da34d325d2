//! Which guest gets a granule of a managed image, and which granule is evicted for it.
//!
//! `--pool managed` is for hosts whose `max` of `/common` must hold at every moment, and for images on file systems
//! whose page cache cannot be evicted page by page: with the page cache as backing the kernel decides when a page of an
//! image is freed, and the pool can exceed its `max` until then. Here the balancer decides before a page is filled. The
//! price is one question per granule of 64 KiB.
//!
//! The budget is hard: it is the `max` of the container that pays for the image, or of the pool's own, and no granule
//! is filled beyond it. When it is reached, the first of these is evicted:
//!
//! 1. the oldest granule that no guest holds;
//! 2. if the asking domain holds less than its share of the budget: the oldest of the domain that holds most beyond its
//!    share;
//! 3. if the asking guest holds less than its share of its domain's: the oldest that a guest beyond its share holds
//!    alone;
//! 4. the oldest that the asking guest holds alone.
//!
//! So a guest within its share never loses pages to a guest that is at or over its share, however many guests the other
//! domain runs: a domain's share is the budget divided by the domains that use it, a guest's share is that divided by
//! the guests of the domain. Inside a domain, and only there, a guest whose granules are all held by other guests as
//! well evicts the oldest of these.
//!
//! Filling uses the disk, which all guests share: each guest may have [`FILL_BURST`] granules filled at once and
//! [`FILL_RATE`] a second.
//!
//! | file | question it answers |
//! |---|---|
//! | `room.rs` | is there room for one more granule, and which granule makes room? |
//! | `evict.rs` | how does a granule leave memory? |

mod evict;
mod room;

use super::backing::PoolBacking;
use super::granules::GranuleState;
use super::image::{Key, PoolImage};
use super::images::Pool;
use super::ledger::Seen;
use super::managed::pages_of;
use super::numbers::{GranuleIndex, GuestSeq, Touch};
use accounting::{ContainerId, POOL, System, UNITS_PER_FRAME};
use protocol::image::GRANULE_BYTES;
use protocol::token_bucket::TokenBucket;
use room::Room;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Granules that a guest may have filled at once: 256 MiB, more than a root file system touches while it boots.
pub const FILL_BURST: u32 = 4096;
/// And in each second: 128 MiB, a part of a disk's throughput, so that one guest that thrashes leaves most of it to
/// others. It costs the balancer about 10 % of a CPU, at 50 us for each granule.
pub const FILL_RATE: u32 = 2048;
/// How long a guest may take to unmap a granule.
pub const UNMAP_DEADLINE: Duration = Duration::from_secs(2);

/// The answer to a guest that asks for a granule.
#[derive(Debug)]
pub enum Asked {
    /// It is in memory, and the guest holds it from now on.
    There,
    /// There is room for it: it is to be filled, and then [`Pool::filled`].
    Fill(Arc<dyn PoolBacking>),
    /// The guest had enough granules filled: to be asked again after this.
    Later(Duration),
    /// It is being filled for another guest, or other guests are to unmap for it: to be asked again when something
    /// changed.
    Wait,
    /// No granule can be evicted for it.
    Full,
    /// There is no such granule, or the guest does not map the image.
    Unknown,
}

/// A guest has to unmap a granule, so that it can be evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// The guest.
    pub guest: GuestSeq,
    /// The image.
    pub key: Key,
    /// The granule.
    pub granule: GranuleIndex,
}

impl Pool {
    /// A guest asks for a granule of an image whose payer may hold this number of bytes. Returns the answer, and the
    /// evictions that make room.
    pub fn ask(
        &mut self,
        guest: GuestSeq,
        key: &Key,
        granule: GranuleIndex,
        budget_bytes: Option<u64>,
        now: Instant,
    ) -> (Asked, Vec<Eviction>) {
        let Some((image, backing)) = self.managed(key, guest) else { return (Asked::Unknown, vec![]) };
        if granule.0 >= backing.bytes() / GRANULE_BYTES {
            return (Asked::Unknown, vec![]);
        }
        match image.granules.state(granule) {
            Some(GranuleState::There) => {
                self.hold(guest, key, granule);
                return (Asked::There, vec![]);
            }
            Some(GranuleState::Filling | GranuleState::Leaving(_)) => return (Asked::Wait, vec![]),
            None => {}
        }
        let payer = image.bound.unwrap_or(POOL);
        match self.room(guest, key, payer, budget_bytes, now) {
            Room::None => return (Asked::Full, vec![]),
            Room::Coming(evictions) => return (Asked::Wait, evictions),
            Room::There => {}
        }
        let full = || TokenBucket::full(FILL_RATE.into(), FILL_BURST.into(), now);
        if let Err(wait) = self.fills.entry(guest).or_insert_with(full).take(now) {
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
        guest: GuestSeq,
        key: &Key,
        granule: GranuleIndex,
        backing: &Arc<dyn PoolBacking>,
        done: bool,
    ) {
        let touch = self.touch();
        let Some(image) = self.images.get_mut(key) else { return };
        // Another image may have come in its place.
        if !Arc::ptr_eq(&image.backing, backing)
            || image.granules.state(granule) != Some(GranuleState::Filling)
        {
            return;
        }
        if !done {
            image.granules.free(granule);
            return;
        }
        image.granules.filled(granule, touch);
        let resident = Some(image.ledger.resident().clone().with(pages_of(granule)));
        image.ledger.apply(&Seen { resident, ..Seen::default() });
        self.hold(guest, key, granule);
    }

    /// A guest has unmapped a granule. True if a guest may wait for its room.
    pub fn unmapped(&mut self, guest: GuestSeq, key: &Key, granule: GranuleIndex) -> bool {
        let Some(image) = self.images.get_mut(key) else { return false };
        if !image.granules.unmapped(granule, guest) {
            return false;
        }
        if let Some(pages) = image.ledger.mapped_by(guest) {
            let pages = pages.without(pages_of(granule));
            image.ledger.apply(&Seen { resident: None, mapped: [(guest, pages)].into() });
        }
        if image.granules.is_free(granule) {
            image.free(granule);
        }
        self.settle(key);
        true
    }

    /// A guest has unmapped all of its managed images.
    pub fn release(&mut self, guest: GuestSeq) {
        for image in self.images.values_mut().filter(|image| image.is_managed()) {
            let held = image.granules.of(guest);
            if held.is_empty() {
                continue;
            }
            for granule in held {
                image.granules.unmapped(granule, guest);
                if image.granules.is_free(granule) {
                    image.free(granule);
                }
            }
            let none = super::PageSet::new(image.ledger.resident().pages());
            image.ledger.apply(&Seen { resident: None, mapped: [(guest, none)].into() });
        }
        self.recount();
    }

    /// Guests that were told to unmap and did not in time.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> Vec<GuestSeq> {
        let Some(before) = now.checked_sub(UNMAP_DEADLINE) else { return vec![] };
        let mut late: Vec<GuestSeq> =
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
    fn managed(&self, key: &Key, guest: GuestSeq) -> Option<(&PoolImage, Arc<dyn PoolBacking>)> {
        let image = self.images.get(key)?;
        let maps = image.is_managed() && image.sharers.contains_key(&guest);
        maps.then(|| (image, Arc::clone(&image.backing)))
    }

    fn touch(&mut self) -> Touch {
        self.touches.0 += 1;
        self.touches
    }

    fn hold(&mut self, guest: GuestSeq, key: &Key, granule: GranuleIndex) {
        let touch = self.touch();
        let Some(image) = self.images.get_mut(key) else { return };
        // The guest may have left while the granule was filled.
        let Some(pages) = image.ledger.mapped_by(guest) else { return };
        let pages = pages.clone().with(pages_of(granule));
        image.granules.hold(granule, guest, touch);
        image.ledger.apply(&Seen { resident: None, mapped: [(guest, pages)].into() });
        self.settle(key);
    }

    /// The ledger of an image changed.
    fn settle(&mut self, key: &Key) {
        if let Some(image) = self.images.get(key)
            && self.system != System::Rss
        {
            self.uncharged_frames += image.ledger.unbalanced().div_ceil(UNITS_PER_FRAME);
        }
        self.recount();
    }
}

impl PoolImage {
    /// True if the balancer fills it.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.backing.as_managed().is_some()
    }
}

#[cfg(test)]
#[path = "admission_test.rs"]
mod tests;
