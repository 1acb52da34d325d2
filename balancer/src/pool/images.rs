//! The images of the pool, and the guests that map them.

use super::backing::PoolBacking;
use super::error::PoolError;
use super::granules::Granules;
use super::image::{Kept, Key, PoolImage, Sharer};
use super::ledger::ImageLedger;
use super::numbers::{GuestSeq, Touch};
use accounting::{ContainerId, GuestId, System, User};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::FrameReader;
use protocol::image::Digest;
use protocol::token_bucket::TokenBucket;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Images at a time, at most: each takes a descriptor.
pub const IMAGES_OPEN_MAX: usize = 1024;

/// The pool. It reads neither files nor tables nor the clock: a [`Sampling`](super::Sampling) does, and callers pass
/// the time.
#[derive(Debug)]
pub struct Pool {
    pub(super) system: System,
    pub(super) images: BTreeMap<Key, PoolImage>,
    pub(super) guests: BTreeMap<GuestSeq, GuestId>,
    /// Limits the granules that a guest may have filled.
    pub(super) fills: BTreeMap<GuestSeq, TokenBucket>,
    /// Guests with less than their share that wait until others have unmapped, and since when.
    pub(super) waiting: BTreeMap<GuestSeq, Instant>,
    /// Counts fills and new holders: the order in which granules become old.
    pub(super) touches: Touch,
    /// Bytes by payer; the pool's own under [`POOL`].
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
            touches: Touch(0),
            charges: BTreeMap::new(),
            uncharged_frames: 0,
            started_at: now,
        }
    }

    /// An image that was verified is to be mapped. It is known from now on, even if no guest maps it.
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

    /// A guest has an image among its regions. False if the image is not known.
    pub fn join(
        &mut self,
        key: &Key,
        seq: GuestSeq,
        name: &str,
        container: ContainerId,
        (frames, first): (Arc<FrameReader>, u64),
        now: Instant,
    ) -> bool {
        let Some(image) = self.images.get_mut(key) else { return false };
        let used = &self.guests;
        let guest = used.get(&seq).copied().unwrap_or_else(|| {
            // Ids of guests that left are used again. 0 is the pool, and the last one stands for no guest.
            let free = (1..u16::MAX).map(GuestId).find(|id| !used.values().any(|used| used == id));
            free.expect("there may be fewer guests than ids")
        });
        self.guests.insert(seq, guest);
        image.ledger.join(seq, User { guest, container });
        let sharer = Sharer { name: name.to_owned(), guest, frames, first, seen_at: None, due_at: now };
        image.sharers.insert(seq, sharer);
        true
    }

    /// A guest is gone.
    pub fn leave(&mut self, seq: GuestSeq, now: Instant) {
        if self.guests.remove(&seq).is_none() {
            return;
        }
        self.release(seq);
        self.fills.remove(&seq);
        self.waiting.remove(&seq);
        for image in self.images.values_mut() {
            if image.sharers.remove(&seq).is_some() {
                image.ledger.leave(seq);
                image.kept = Kept::new(image.ledger.resident().pages(), now);
                image.idle_since = now;
            }
        }
        self.recount();
    }

    /// A container is charged for pages that a guest maps from now on; with `all` also for those that it maps already.
    pub fn charge(&mut self, seq: GuestSeq, container: ContainerId, all: bool) {
        let Some(guest) = self.guests.get(&seq).copied() else { return };
        for image in self.images.values_mut().filter(|image| image.sharers.contains_key(&seq)) {
            // The resident set knows guests only as a whole.
            if all || self.system == System::Rss {
                image.ledger.move_charges(seq, container);
            }
            image.ledger.join(seq, User { guest, container });
        }
        self.recount();
    }

    /// A container is gone.
    pub fn remove(&mut self, container: ContainerId) {
        self.images.values_mut().for_each(|image| image.ledger.remove(container));
        self.recount();
    }

    /// Determines again which container is charged for each image as a whole.
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
    pub fn has_guest(&self, seq: GuestSeq) -> bool {
        self.guests.contains_key(&seq)
    }

    /// The content of an image turned out to be wrong.
    pub fn accuse(&mut self, key: &Key, wrong: &str) {
        if let Some(image) = self.images.get_mut(key) {
            image.changed = Some(wrong.to_owned());
        }
    }
}

#[cfg(test)]
#[path = "images_test.rs"]
mod tests;
