//! The images of the pool, who maps them, and what that costs whom.

use super::admission::Fills;
use super::backing::{PoolBacking, Stamp};
use super::error::PoolError;
use super::granules::Granules;
use super::image::{Kept, Key, PoolImage, Sharer};
use super::ledger::ImageLedger;
use super::page_set::PageSet;
use super::sample::{Answer, Plan, Question};
use crate::accounting::{ContainerId, GuestId, POOL, Run, System, UNITS_PER_FRAME, User};
use protocol::bytes::{FRAME_BYTES, Human};
use protocol::frames::FrameReader;
use protocol::image::{Digest, GRANULE_BYTES};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Images at a time, at most: each takes a descriptor.
pub const IMAGES_OPEN_MAX: usize = 1024;
/// An image that no guest maps and of which nothing is resident is let go after this.
const IDLE: Duration = Duration::from_secs(60);
/// Looks at the part of a guest's table that covers an image, and what follows from them, may take one part in so many
/// of a CPU for each guest: who makes them expensive is looked at less often, and nobody else is.
const GUEST_CPU_PART: u32 = 1000;
/// What a run of pages that a guest began or ceased to map costs at most, told to both sets of books.
const RUN_COST: Duration = Duration::from_micros(2);
/// Granules that a guest needs of managed images at once. One instruction has itself and two operands, each of which may lie across
/// two granules; a device reads while it waits; the rest is for programs to be more than one instruction long.
const NEEDED_GRANULES: u64 = 16;
const UNITS_PER_BYTE: u64 = UNITS_PER_FRAME / FRAME_BYTES;

/// The pool. Pure but for the clock that it is told: what looks at files and tables is a [`Plan`].
#[derive(Debug)]
pub struct Pool {
    pub(super) system: System,
    pub(super) images: BTreeMap<Key, PoolImage>,
    guests: BTreeMap<u64, GuestId>,
    /// What guests may still fill of managed images.
    pub(super) fills: BTreeMap<u64, Fills>,
    /// Guests that wait for others to let go, and since when: they have less than their part.
    pub(super) waiting: BTreeMap<u64, Instant>,
    /// Counts what was filled and held, to tell what is older.
    pub(super) turns: u64,
    /// Bytes by payer; what is the pool's own under [`POOL`].
    charges: BTreeMap<ContainerId, u64>,
    pub(super) uncharged_frames: u64,
    started_at: Instant,
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

    /// What is to be looked at now; all of it, or what is due.
    pub fn plan(&mut self, now: Instant, all: bool) -> Plan {
        let now_ms = u64::try_from(now.duration_since(self.started_at).as_millis()).unwrap_or(u64::MAX);
        let idle = |image: &PoolImage| {
            let rests = image.ledger.resident().is_empty() && image.seen_at.is_some();
            // A removed file is held by nothing but our descriptor.
            let idle = image.is_removed || rests && now.duration_since(image.idle_since) >= IDLE;
            image.sharers.is_empty() && idle
        };
        self.images.retain(|_, image| !idle(image));
        let question = |(key, image): (&Key, &mut PoolImage)| {
            image.ledger.advance(now_ms);
            let is_managed = image.is_managed();
            if is_managed {
                // Its books are kept as it happens, and need no look.
                image.seen_at = Some(now);
                image.sharers.values_mut().for_each(|sharer| sharer.seen_at = Some(now));
            }
            let due = image.sharers.iter().filter(|(_, sharer)| !is_managed && (all || sharer.due_at <= now));
            Question {
                key: key.clone(),
                backing: Arc::clone(&image.backing),
                evict: std::mem::take(&mut image.evict),
                tables: due
                    .map(|(order, sharer)| (*order, Arc::clone(&sharer.frames), sharer.first))
                    .collect(),
            }
        };
        Plan(self.images.iter_mut().map(question).collect())
    }

    /// Takes in what was seen, and returns what is wrong with which image, if that is new.
    pub fn apply(&mut self, answers: Vec<Answer>, now: Instant) -> Vec<(Key, String)> {
        let mut wrong = Vec::new();
        for mut answer in answers {
            let Some(image) = self.images.get_mut(&answer.key) else { continue };
            // One that came anew meanwhile was not looked at.
            if !Arc::ptr_eq(&image.backing, &answer.backing) {
                continue;
            }
            image.is_removed = answer.stamp.as_ref().is_ok_and(|stamp| stamp.links == 0);
            if image.is_removed && image.sharers.is_empty() {
                continue;
            }
            let is_managed = image.is_managed();
            let found = match (&answer.stamp, &answer.seen.resident) {
                (Err(error), _) => Some(format!("The system does not say what became of its file: {error}")),
                (_, None) if !is_managed => Some("The kernel does not say what it holds of it".to_owned()),
                (Ok(stamp), _) => difference(&image.stamp, stamp),
            };
            if let Some(found) = found.filter(|found| image.changed.as_ref() != Some(found)) {
                image.changed = Some(found.clone());
                wrong.push((answer.key.clone(), found));
            }
            if is_managed {
                match image.throw_out() {
                    Ok(0) => {}
                    Ok(bytes) => wrong.push((answer.key.clone(), foreign(bytes))),
                    Err(error) => {
                        tracing::warn!(image = %answer.key.digest, %error, "what it holds is not known")
                    }
                }
                if !image.ledger.resident().is_empty() {
                    image.idle_since = now;
                }
                continue;
            }
            let known = |order: &u64| image.sharers.contains_key(order);
            answer.seen.mapped.retain(|order, _| known(order));
            let runs = image.ledger.apply(&answer.seen);
            image.kept.update(&answer.evicted, &image.ledger, now);
            for (order, took) in answer.took {
                if let Some(sharer) = image.sharers.get_mut(&order) {
                    let runs = u32::try_from(runs.get(&order).copied().unwrap_or(0)).unwrap_or(u32::MAX);
                    let cost = took.saturating_add(RUN_COST.saturating_mul(runs));
                    sharer.seen_at = Some(answer.at);
                    sharer.due_at = now + cost.saturating_mul(GUEST_CPU_PART);
                }
            }
            if answer.seen.resident.is_some() {
                image.seen_at = Some(answer.at);
            }
            if self.system != System::Rss {
                self.uncharged_frames += image.ledger.unbalanced().div_ceil(UNITS_PER_FRAME);
            }
            if !image.ledger.resident().is_empty() {
                image.idle_since = now;
            }
        }
        self.recount();
        wrong
    }

    /// Adds up who pays what. Fractions of a byte are the pool's, so that the sum is what is resident.
    pub(super) fn recount(&mut self) {
        let mut units: BTreeMap<ContainerId, u64> = BTreeMap::new();
        for image in self.images.values() {
            match image.bound {
                Some(bound) => *units.entry(bound).or_default() += image.resident_bytes() * UNITS_PER_BYTE,
                None => image
                    .ledger
                    .charges()
                    .for_each(|(payer, charge)| *units.entry(payer).or_default() += charge),
            }
        }
        let rests = units.values().map(|units| units % UNITS_PER_BYTE).sum::<u64>() / UNITS_PER_BYTE;
        self.charges = units.into_iter().map(|(payer, units)| (payer, units / UNITS_PER_BYTE)).collect();
        *self.charges.entry(POOL).or_default() += rests;
        self.charges.retain(|_, bytes| *bytes > 0);
    }

    /// What each container pays for pages of the pool, bytes; what is the pool's own under [`POOL`].
    #[must_use]
    pub fn charges(&self) -> &BTreeMap<ContainerId, u64> {
        &self.charges
    }

    /// The part of a container's charge that counts against its limit now, bytes.
    #[must_use]
    pub fn enforceable_bytes(&self, container: ContainerId) -> u64 {
        let of = |image: &PoolImage| match image.bound {
            Some(bound) if bound == container => image.resident_bytes() * UNITS_PER_BYTE,
            Some(_) => 0,
            None => image.ledger.enforceable(container),
        };
        self.images.values().map(of).sum::<u64>() / UNITS_PER_BYTE
    }

    /// By how much the charges may be off because guests mapped pages that their tables do not tell of yet, bytes.
    #[must_use]
    pub fn error_bytes(&self) -> u64 {
        self.images.values().map(PoolImage::error_bytes).fold(0, u64::saturating_add)
    }

    /// What a guest would pay if it were a container of its own, for images that are not bound. Bytes.
    #[must_use]
    pub fn charged_to_guest(&self, order: u64) -> u64 {
        let Some(guest) = self.guests.get(&order) else { return 0 };
        let unbound = self.images.values().filter(|image| image.bound.is_none());
        unbound.map(|image| image.ledger.charged_to_guest(*guest)).sum::<u64>() / UNITS_PER_BYTE
    }

    /// What a guest maps, bytes.
    #[must_use]
    pub fn mapped_by(&self, order: u64) -> u64 {
        let of =
            |image: &PoolImage| image.ledger.sharers().find(|(other, _)| *other == order).map(|(_, p)| p);
        self.images.values().filter_map(of).sum::<u64>() * FRAME_BYTES
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

    /// Frames that were charged to nobody, or to two, at any sample. Must stay 0.
    #[must_use]
    pub fn uncharged_frames(&self) -> u64 {
        self.uncharged_frames
    }

    /// What a container pays for without that any guest maps it, bytes: this can go.
    #[must_use]
    pub fn unmapped_bytes(&self, payer: ContainerId) -> u64 {
        self.paid_unmapped(payer).map(PoolImage::unmapped_bytes).sum()
    }

    /// What a container pays for that no guest maps and the kernel keeps all the same, bytes.
    #[must_use]
    pub fn kept_bytes(&self, payer: ContainerId) -> u64 {
        self.paid_unmapped(payer).map(PoolImage::kept_bytes).sum()
    }

    /// The part of what a container pays for as a whole that guests map, bytes: this cannot go. What of managed images is mapped
    /// can, but for what guests need of them at once: that is [`Pool::needed_bytes`].
    #[must_use]
    pub fn pinned_bytes(&self, payer: ContainerId) -> u64 {
        let sampled = self.paid_unmapped(payer).filter(|image| !image.is_managed());
        let of = |image: &PoolImage| match image.bound {
            Some(_) => image.mapped_bytes(),
            None => {
                let own = image
                    .ledger
                    .charges()
                    .find(|(charged, _)| *charged == POOL)
                    .map_or(0, |(_, units)| units);
                (own / UNITS_PER_BYTE).saturating_sub(image.resident_bytes() - image.mapped_bytes())
            }
        };
        sampled.map(of).sum()
    }

    /// What guests that run from a payer's managed images need to have at once, so that they come to an end with anything, bytes.
    #[must_use]
    pub fn needed_bytes(&self, payer: ContainerId) -> u64 {
        let managed = self.paid_unmapped(payer).filter(|image| image.is_managed());
        let guests: BTreeSet<u64> = managed.flat_map(|image| image.sharers.keys().copied()).collect();
        guests.len() as u64 * NEEDED_GRANULES * GRANULE_BYTES
    }

    /// What would not be held if equal images of several domains were one: pages that are resident in more than one of
    /// them, bytes.
    #[must_use]
    pub fn would_have_saved_bytes(&self) -> u64 {
        let images: Vec<_> = self.images.iter().collect();
        let of = |same: &[(&Key, &PoolImage)]| {
            let mut once = PageSet::new(same[0].1.ledger.resident().pages());
            same.iter().for_each(|(_, image)| once.add(image.ledger.resident()));
            same.iter().map(|(_, image)| image.ledger.resident().count()).sum::<u64>() - once.count()
        };
        // Keys are in the order of digests.
        images.chunk_by(|a, b| a.0.digest == b.0.digest).map(of).sum::<u64>() * FRAME_BYTES
    }

    /// Something is wrong with an image, found by who looked at its content.
    pub fn accuse(&mut self, key: &Key, wrong: &str) {
        if let Some(image) = self.images.get_mut(key) {
            image.changed = Some(wrong.to_owned());
        }
    }

    /// Marks so much of that to be let go with the next look, of images that nobody maps first. What cannot be marked is
    /// mapped, or kept by the kernel.
    pub fn evict(&mut self, payer: ContainerId, bytes: u64) {
        let mut left = self.evict_managed(payer, bytes).div_ceil(FRAME_BYTES);
        let mut images: Vec<&mut PoolImage> = self
            .images
            .values_mut()
            .filter(|image| !image.is_managed() && image.bound.unwrap_or(POOL) == payer)
            .collect();
        images.sort_by_key(|image| image.sharers.len());
        for image in images {
            image.evict.clear();
            let unmapped = image.ledger.resident().minus(image.ledger.mapped());
            for run in image.kept.without(&unmapped).runs() {
                if left == 0 {
                    break;
                }
                let count = run.count.min(left);
                left -= count;
                image.evict.push(Run { count, ..run });
            }
        }
    }

    /// Images whose unmapped pages a container pays for: those that are bound to it, or to nobody.
    fn paid_unmapped(&self, payer: ContainerId) -> impl Iterator<Item = &PoolImage> {
        self.images.values().filter(move |image| image.bound.unwrap_or(POOL) == payer)
    }
}

/// Somebody read what he was not given.
fn foreign(bytes: u64) -> String {
    format!("{} of its memory came from reading it without asking, and were thrown out", Human(bytes))
}

/// What became of a file, if it is not what it was.
fn difference(before: &Stamp, now: &Stamp) -> Option<String> {
    if before == now {
        return None;
    }
    Some(match now {
        Stamp { links: 0, .. } => "Its file was removed; who maps it keeps it".to_owned(),
        _ if before.bytes != now.bytes => {
            format!(
                "Its file has {} now and had {} when it was verified",
                Human(now.bytes),
                Human(before.bytes)
            )
        }
        _ => "Its file was changed after it was verified, in content or attributes".to_owned(),
    })
}

#[cfg(test)]
#[path = "images_test.rs"]
mod tests;
