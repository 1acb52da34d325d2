//! One image of the pool in one trust domain, and the guests that map it.

use super::backing::{PoolBacking, Stamp};
use super::granules::Granules;
use super::ledger::ImageLedger;
use super::numbers::GuestSeq;
use super::page_set::PageSet;
use accounting::{ContainerId, GuestId, Run};
use protocol::bytes::FRAME_BYTES;
use protocol::domain::Domain;
use protocol::frames::FrameReader;
use protocol::image::Digest;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pages that the kernel did not evict are tried again after this.
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
    /// The guest, for the accounting system.
    pub guest: GuestId,
    /// Its frame table, and the first frame of the image in it.
    pub frames: Arc<FrameReader>,
    /// The first frame of the image's region.
    pub first: u64,
    /// When its table was read last.
    pub seen_at: Option<Instant>,
    /// When its table is to be read next.
    pub(super) due_at: Instant,
}

/// One image in one domain.
#[derive(Debug)]
pub struct PoolImage {
    /// What holds its pages.
    pub backing: Arc<dyn PoolBacking>,
    /// Where it was built from.
    pub origin: String,
    /// The payers of its pages.
    pub ledger: ImageLedger,
    /// Guests that map it.
    pub sharers: BTreeMap<GuestSeq, Sharer>,
    /// The container that is charged for all of it, if it is bound.
    pub bound: Option<ContainerId>,
    /// When its residency was read last.
    pub seen_at: Option<Instant>,
    /// The defect of its file, if one was found after it was verified.
    pub changed: Option<String>,
    /// Of a managed image: the granules in memory, and their holders.
    pub granules: Granules,
    pub(super) stamp: Stamp,
    pub(super) is_removed: bool,
    pub(super) idle_since: Instant,
    pub(super) evict: Vec<Run>,
    pub(super) kept: Kept,
}

/// Pages that no guest maps and that the kernel did not evict: they are part of a large folio of which another page is
/// mapped.
#[derive(Debug)]
pub(super) struct Kept {
    pages: PageSet,
    /// When the first of them was tried.
    since: Instant,
}

impl Kept {
    /// No page yet, of an image of this number of pages.
    pub(super) fn new(pages: u64, now: Instant) -> Self {
        Self { pages: PageSet::new(pages), since: now }
    }

    /// Adds pages that were tried, and removes those that are gone or mapped now. After a while all of them are tried
    /// again.
    pub(super) fn update(&mut self, tried: &[Run], ledger: &ImageLedger, now: Instant) {
        if self.pages.is_empty() || now.duration_since(self.since) >= KEPT_FOR {
            *self = Self::new(self.pages.pages(), now);
        }
        tried.iter().for_each(|run| self.pages.insert(*run));
        self.pages = self.pages.and(&ledger.resident().minus(ledger.mapped()));
    }

    /// A set without them.
    pub(super) fn without(&self, pages: &PageSet) -> PageSet {
        pages.minus(&self.pages)
    }
}

impl PoolImage {
    /// Resident pages of it, bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.ledger.resident().count() * FRAME_BYTES
    }

    /// The part of that which guests map, bytes; a page counts once, however many guests map it.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        self.ledger.mapped().count() * FRAME_BYTES
    }

    /// Pages that no guest maps and the kernel keeps all the same, bytes.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept.pages.count() * FRAME_BYTES
    }

    /// Pages that can be evicted, bytes.
    #[must_use]
    pub fn unmapped_bytes(&self) -> u64 {
        self.resident_bytes() - self.mapped_bytes() - self.kept_bytes()
    }

    /// By how much the charges may be off, bytes: by pages that the guests' tables may not show yet, and by pages that
    /// only one of table and accounts has, because the accounts are as old as the last scan of the table.
    #[must_use]
    pub fn error_bytes(&self) -> u64 {
        let of = |(seq, sharer): (&GuestSeq, &Sharer)| {
            let regions = sharer.frames.totals_by_region();
            let told =
                regions.iter().find(|(region, _)| region.first == sharer.first).map(|(_, totals)| totals);
            let booked = self.ledger.mapped_by(*seq).map_or(0, PageSet::count);
            let frames = told
                .map_or(0, |told| told.shared_error_frames_max.saturating_add(told.shared.abs_diff(booked)));
            frames.saturating_mul(FRAME_BYTES).min(self.resident_bytes())
        };
        // The holders of a managed image are known.
        let told = self.sharers.iter().filter(|_| !self.is_managed());
        told.map(of).fold(0, u64::saturating_add)
    }

    /// Names of the guests that map it.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.sharers.values().map(|sharer| sharer.name.as_str()).collect();
        names.join(", ")
    }
}
