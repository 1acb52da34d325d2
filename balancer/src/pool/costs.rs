//! The charges of the pool's images by container, and the part of them that can be evicted.

use super::image::{Key, PoolImage};
use super::images::Pool;
use super::numbers::GuestSeq;
use super::page_set::PageSet;
use accounting::{ContainerId, POOL, UNITS_PER_FRAME};
use protocol::bytes::FRAME_BYTES;
use protocol::image::GRANULE_BYTES;
use std::collections::{BTreeMap, BTreeSet};

/// Granules of managed images that a guest needs at once. One instruction needs its code and two operands, each of
/// which may lie across two granules; a device reads meanwhile; the rest is for programs that are more than one
/// instruction long.
const NEEDED_GRANULES: u64 = 16;
const UNITS_PER_BYTE: u64 = UNITS_PER_FRAME / FRAME_BYTES;

impl Pool {
    /// Adds up the charges. Fractions of a byte are the pool's, so that the sum is the resident memory.
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

    /// The charge of each container for pages of the pool, bytes; the pool's own under [`POOL`].
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

    /// Error bound of the charges, bytes: guests may have mapped pages that their tables do not show yet.
    #[must_use]
    pub fn error_bytes(&self) -> u64 {
        self.images.values().map(PoolImage::error_bytes).fold(0, u64::saturating_add)
    }

    /// The charge of a guest if it were a container of its own, for images that are not bound. Bytes.
    #[must_use]
    pub fn charged_to_guest(&self, seq: GuestSeq) -> u64 {
        let Some(guest) = self.guests.get(&seq) else { return 0 };
        let unbound = self.images.values().filter(|image| image.bound.is_none());
        unbound.map(|image| image.ledger.charged_to_guest(*guest)).sum::<u64>() / UNITS_PER_BYTE
    }

    /// Pages that a guest maps, bytes.
    #[must_use]
    pub fn mapped_by(&self, seq: GuestSeq) -> u64 {
        let of = |image: &PoolImage| image.ledger.sharers().find(|(other, _)| *other == seq).map(|(_, p)| p);
        self.images.values().filter_map(of).sum::<u64>() * FRAME_BYTES
    }

    /// Frames that were charged to no container, or to two, at any sample. Must stay 0.
    #[must_use]
    pub fn uncharged_frames(&self) -> u64 {
        self.uncharged_frames
    }

    /// Pages that a container is charged for and no guest maps, bytes: they can be evicted.
    #[must_use]
    pub fn unmapped_bytes(&self, payer: ContainerId) -> u64 {
        self.paid_unmapped(payer).map(PoolImage::unmapped_bytes).sum()
    }

    /// Pages that a container is charged for, no guest maps and the kernel keeps all the same, bytes.
    #[must_use]
    pub fn kept_bytes(&self, payer: ContainerId) -> u64 {
        self.paid_unmapped(payer).map(PoolImage::kept_bytes).sum()
    }

    /// Mapped pages that a container is charged for, whichever guest maps them, bytes: they cannot be evicted. Mapped
    /// pages of managed images can, except for those that guests need at once: see [`Pool::needed_bytes`].
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

    /// Memory that guests with a payer's managed images need at once, so that they make progress, bytes.
    #[must_use]
    pub fn needed_bytes(&self, payer: ContainerId) -> u64 {
        let managed = self.paid_unmapped(payer).filter(|image| image.is_managed());
        let guests: BTreeSet<GuestSeq> = managed.flat_map(|image| image.sharers.keys().copied()).collect();
        guests.len() as u64 * NEEDED_GRANULES * GRANULE_BYTES
    }

    /// Memory that would be saved if equal images of several domains were one: pages that are resident in more than one
    /// of them, bytes.
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

    /// Images whose unmapped pages are charged to a container: those that are bound to it; for the pool those that are
    /// not bound.
    fn paid_unmapped(&self, payer: ContainerId) -> impl Iterator<Item = &PoolImage> {
        self.images.values().filter(move |image| image.bound.unwrap_or(POOL) == payer)
    }
}
