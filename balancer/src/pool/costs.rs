//! What the images of the pool cost whom, and which part of it can go.

use super::image::{Key, PoolImage};
use super::images::Pool;
use super::page_set::PageSet;
use accounting::{ContainerId, POOL, UNITS_PER_FRAME};
use protocol::bytes::FRAME_BYTES;
use protocol::image::GRANULE_BYTES;
use std::collections::{BTreeMap, BTreeSet};

/// Granules that a guest needs of managed images at once. One instruction has itself and two operands, each of which may lie across
/// two granules; a device reads while it waits; the rest is for programs to be more than one instruction long.
const NEEDED_GRANULES: u64 = 16;
const UNITS_PER_BYTE: u64 = UNITS_PER_FRAME / FRAME_BYTES;

impl Pool {
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

    /// Images whose unmapped pages a container pays for: those that are bound to it, or to nobody.
    fn paid_unmapped(&self, payer: ContainerId) -> impl Iterator<Item = &PoolImage> {
        self.images.values().filter(move |image| image.bound.unwrap_or(POOL) == payer)
    }
}
