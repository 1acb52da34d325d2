//! The images of the pool, and who maps them.

use super::admission::Fills;
use super::backing::PoolBacking;
use super::error::PoolError;
use super::granules::Granules;
use super::image::{Kept, Key, PoolImage, Sharer};
use super::ledger::ImageLedger;
use accounting::{ContainerId, GuestId, System, User};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::FrameReader;
use protocol::image::Digest;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Images at a time, at most: each takes a descriptor.
pub const IMAGES_OPEN_MAX: usize = 1024;

/// The pool. Pure but for the clock that it is told: what looks at files and tables is a [`Plan`](super::Plan).
#[derive(Debug)]
pub struct Pool {
    pub(super) system: System,
    pub(super) images: BTreeMap<Key, PoolImage>,
    pub(super) guests: BTreeMap<u64, GuestId>,
    /// What guests may still fill of managed images.
    pub(super) fills: BTreeMap<u64, Fills>,
    /// Guests that wait for others to let go, and since when: they have less than their part.
    pub(super) waiting: BTreeMap<u64, Instant>,
    /// Counts what was filled and held, to tell what is older.
    pub(super) turns: u64,
    /// Bytes by payer; what is the pool's own under [`POOL`].
    pub(super) charges: BTreeMap<ContainerId, u64>,
    pub(super) uncharged_frames: u64,
    pub(super) started_at: Instant,
}

impl Pool {
    /// An empty pool that is accounted for by this system.
    #[must_use]
    pub fn new(system: System, now: Instant) -> Self {
        Self {
            system,
            images: BTreeMap::new(),
            guests: BTreeMap::new(),
            fills: BTreeMap::new(),
            waiting: BTreeMap::new(),
            turns: 0,
            charges: BTreeMap::new(),
            uncharged_frames: 0,
            started_at: now,
        }
    }

    /// An image that was verified is to be mapped. It is known from here on, whether or not a guest comes for it.
    ///
    /// # Errors
    /// When there are too many, or guests map another file under this name.
    pub fn open(
        &mut self,
        key: &Key,
        origin: &str,
        backing: Arc<dyn PoolBacking>,
        now: Instant,
    ) -> Result<(), PoolError> {
        let stamp = backing.stamp().map_err(|source| PoolError::Io { digest: key.digest, source })?;
        let is_full = self.images.len() >= IMAGES_OPEN_MAX;
        match self.images.get_mut(key) {
            Some(image) if image.stamp.inode == stamp.inode => {
                (image.stamp, image.changed, image.idle_since) = (stamp, None, now);
                return Ok(());
            }
            Some(image) if !image.sharers.is_empty() => {
                let guests = image.names();
                return Err(PoolError::OtherFile { digest: key.digest, domain: key.domain.clone(), guests });
            }
            None if is_full => return Err(PoolError::Full),
            _ => {}
        }
        let pages = backing.bytes() / FRAME_BYTES;
        let image = PoolImage {
            backing,
            origin: origin.to_owned(),
            ledger: ImageLedger::new(self.system, pages),
            sharers: BTreeMap::new(),
            bound: None,
            seen_at: None,
            changed: None,
            granules: Granules::default(),
            stamp,
            is_removed: false,
            idle_since: now,
            evict: vec![],
            kept: Kept::new(pages, now),
        };
        self.images.insert(key.clone(), image);
        Ok(())
    }

    /// A guest has an image among its regions; `order` counts guests as they register. False if the image is not known.
    pub fn join(
        &mut self,
        key: &Key,
        order: u64,
        name: &str,
        container: ContainerId,
        (frames, first): (Arc<FrameReader>, u64),
        now: Instant,
    ) -> bool {
        let Some(image) = self.images.get_mut(key) else { return false };
        let used = &self.guests;
        let guest = used.get(&order).copied().unwrap_or_else(|| {
            // Ids of guests that left are given again: 0 is the pool, the last one nobody.
            let free = (1..u16::MAX).map(GuestId).find(|id| !used.values().any(|used| used == id));
            free.expect("there are places for fewer guests than ids")
        });
        self.guests.insert(order, guest);
        image.ledger.join(order, User { guest, container });
        let sharer = Sharer { name: name.to_owned(), guest, frames, first, seen_at: None, due_at: now };
        image.sharers.insert(order, sharer);
        true
    }

    /// A guest is gone.
    pub fn leave(&mut self, order: u64, now: Instant) {
        if self.guests.remove(&order).is_none() {
            return;
        }
        self.release(order);
        self.fills.remove(&order);
        self.waiting.remove(&order);
        for image in self.images.values_mut() {
            if image.sharers.remove(&order).is_some() {
                image.ledger.leave(order);
                image.kept = Kept::new(image.ledger.resident().pages(), now);
                image.idle_since = now;
            }
        }
        self.recount();
    }

    /// A container pays for what a guest maps from now on; with `all` for what it maps already as well.
    pub fn charge(&mut self, order: u64, container: ContainerId, all: bool) {
        let Some(guest) = self.guests.get(&order).copied() else { return };
        for image in self.images.values_mut().filter(|image| image.sharers.contains_key(&order)) {
            // The resident set knows guests only as a whole.
            if all || self.system == System::Rss {
                image.ledger.move_charges(order, container);
            }
            image.ledger.join(order, User { guest, container });
        }
        self.recount();
    }

    /// A container is gone.
    pub fn remove(&mut self, container: ContainerId) {
        self.images.values_mut().for_each(|image| image.ledger.remove(container));
        self.recount();
    }

    /// Asks anew who pays for each image as a whole.
    pub fn rebind(&mut self, bound: impl Fn(&Digest, &str) -> Option<ContainerId>) {
        for (key, image) in &mut self.images {
            image.bound = bound(&key.digest, &image.origin);
        }
        self.recount();
    }

    /// Images as they are.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &PoolImage)> {
        self.images.iter()
    }

    /// An image.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&PoolImage> {
        self.images.get(key)
    }

    /// True if a guest maps any image.
    #[must_use]
    pub fn has_guest(&self, order: u64) -> bool {
        self.guests.contains_key(&order)
    }

    /// Something is wrong with an image, found by who looked at its content.
    pub fn accuse(&mut self, key: &Key, wrong: &str) {
        if let Some(image) = self.images.get_mut(key) {
            image.changed = Some(wrong.to_owned());
        }
    }
}

#[cfg(test)]
#[path = "images_test.rs"]
mod tests;
