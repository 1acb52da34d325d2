//! One image of the pool in one trust domain, and the guests that map it.

use super::backing::{PoolBacking, Stamp};
use super::granules::Granules;
use super::ledger::ImageLedger;
use super::page_set::PageSet;
use accounting::{ContainerId, GuestId, Run};
use protocol::bytes::FRAME_BYTES;
use protocol::domain::Domain;
use protocol::frames::FrameReader;
use protocol::image::Digest;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pages that the kernel would not let go are tried again after this.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// An image in a trust domain: in another domain it is another file, and nothing is shared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The image.
    pub digest: Digest,
    /// The domain.
    pub domain: Domain,
}

/// An image and what holds its pages.
pub type Backed = (Key, Arc<dyn PoolBacking>);

/// A guest that maps an image.
#[derive(Debug)]
pub struct Sharer {
    /// Its name.
    pub name: String,
    /// The guest, in the books.
    pub guest: GuestId,
    /// Its frame table, and the first frame of the image in it.
    pub frames: Arc<FrameReader>,
    /// The first frame of the image's region.
    pub first: u64,
    /// When its table was looked at last.
    pub seen_at: Option<Instant>,
    /// When it is to be looked at next.
    pub(super) due_at: Instant,
}

/// One image in one domain.
#[derive(Debug)]
pub struct PoolImage {
    /// What holds its pages.
    pub backing: Arc<dyn PoolBacking>,
    /// Where it was built from.
    pub origin: String,
    /// Who pays for its pages.
    pub ledger: ImageLedger,
    /// Guests that map it, in the order in which they registered.
    pub sharers: BTreeMap<u64, Sharer>,
    /// The container that pays for all of it, if it is bound.
    pub bound: Option<ContainerId>,
    /// When its residency was looked at last.
    pub seen_at: Option<Instant>,
    /// What was found to be wrong with its file since it was verified.
    pub changed: Option<String>,
    /// Of a managed image: what is in memory, and who holds it.
    pub granules: Granules,
    pub(super) stamp: Stamp,
    pub(super) is_removed: bool,
    pub(super) idle_since: Instant,
    pub(super) evict: Vec<Run>,
    pub(super) kept: Kept,
}

/// Pages that no guest maps and that the kernel would not let go: of a large folio another page of which is mapped.
#[derive(Debug)]
pub(super) struct Kept {
    pages: PageSet,
    /// When the first of them was tried.
    since: Instant,
}

impl Kept {
    /// None yet, of an image of so many pages.
    pub(super) fn new(pages: u64, now: Instant) -> Self {
        Self { pages: PageSet::new(pages), since: now }
    }

    /// Takes in what was tried, and what is there and mapped after that. After a while all of them are worth another
    /// try.
    pub(super) fn update(&mut self, tried: &[Run], ledger: &ImageLedger, now: Instant) {
        if self.pages.is_empty() || now.duration_since(self.since) >= KEPT_FOR {
            *self = Self::new(self.pages.pages(), now);
        }
        tried.iter().for_each(|run| self.pages.insert(*run));
        self.pages = self.pages.and(&ledger.resident().minus(ledger.mapped()));
    }

    /// What is left of a set without them.
    pub(super) fn without(&self, pages: &PageSet) -> PageSet {
        pages.minus(&self.pages)
    }
}

impl PoolImage {
    /// What the host holds of it, bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.ledger.resident().count() * FRAME_BYTES
    }

    /// The part of that which guests map, bytes; once, however many do.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        self.ledger.mapped().count() * FRAME_BYTES
    }

    /// What no guest maps and the kernel keeps all the same, bytes.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept.pages.count() * FRAME_BYTES
    }

    /// What can be let go, bytes.
    #[must_use]
    pub fn unmapped_bytes(&self) -> u64 {
        self.resident_bytes() - self.mapped_bytes() - self.kept_bytes()
    }

    /// By how much the charges may be off, bytes: by what the guests' tables may not count yet, and by what tables
    /// and books differ by, because the books are as old as the last scan of the table.
    #[must_use]
    pub fn error_bytes(&self) -> u64 {
        let of = |(order, sharer): (&u64, &Sharer)| {
            let regions = sharer.frames.totals_by_region();
            let counted =
                regions.iter().find(|(region, _)| region.first == sharer.first).map(|(_, totals)| totals);
            let booked = self.ledger.mapped_by(*order).map_or(0, PageSet::count);
            let frames = counted
                .map_or(0, |now| now.shared_error_frames_max.saturating_add(now.shared.abs_diff(booked)));
            frames.saturating_mul(FRAME_BYTES).min(self.resident_bytes())
        };
        // Who holds what of a managed image is known.
        let sampled = self.sharers.iter().filter(|_| !self.is_managed());
        sampled.map(of).fold(0, u64::saturating_add)
    }

    /// Names of the guests that map it.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.sharers.values().map(|sharer| sharer.name.as_str()).collect();
        names.join(", ")
    }
}
