//! The payers of the pages of one image in one trust domain. Samples of residency and sharers become transitions
//! between two samples, which the host's accounting system counts.
//!
//! ```text
//!                 touch by the pool        share by the first guest     share by others
//!    not there --------------------> the pool's own ----------> one guest's ----------> several
//!        ^                               |     ^                                            |
//!        +------------- free ------------+     +------- unshare by the last guest ----------+
//! ```
//!
//! A page that no guest maps is charged to the pool, not to an earlier user of it. If several guests came within one
//! interval, the one that registered first came first. The tables of guests are hostile: a page that they call shared
//! counts only while the kernel says that it is resident, so no table makes the charges differ from the memory that the
//! host holds.
//!
//! A second instance of the accounting system gets the same transitions with every guest as a container of its own: it
//! says what each guest would pay for itself.

use super::numbers::GuestSeq;
use super::page_set::PageSet;
use accounting::{
    Accounting, ContainerId, GuestId, Kind, POOL, POOL_USER, Run, System, UNITS_PER_FRAME, User,
};
use std::collections::{BTreeMap, BTreeSet};

/// A guest that maps the image.
#[derive(Debug)]
struct Sharer {
    user: User,
    /// The resident pages that it maps.
    pages: PageSet,
}

/// The charges of one image.
#[derive(Debug)]
pub struct ImageLedger {
    by_container: Box<dyn Accounting>,
    by_guest: Box<dyn Accounting>,
    resident: PageSet,
    sharers: BTreeMap<GuestSeq, Sharer>,
    /// Pages that at least one of them maps.
    mapped: PageSet,
    /// All containers that were charged since the image came.
    payers: BTreeSet<ContainerId>,
}

/// A sample. Residency of `None`, and guests that are missing, were not sampled: they are as they were.
#[derive(Debug, Default)]
pub struct Seen {
    /// Pages that the host holds.
    pub resident: Option<PageSet>,
    /// Pages that guests map according to their tables.
    pub mapped: BTreeMap<GuestSeq, PageSet>,
}

impl ImageLedger {
    /// The charges of an image of this number of pages, of which none is resident.
    #[must_use]
    pub fn new(system: System, pages: u64) -> Self {
        Self {
            by_container: system.build(),
            by_guest: system.build(),
            resident: PageSet::new(pages),
            sharers: BTreeMap::new(),
            mapped: PageSet::new(pages),
            payers: [POOL].into(),
        }
    }

    /// A guest has it among its regions; pages that it touches are charged to this user.
    pub fn join(&mut self, seq: GuestSeq, user: User) {
        self.payers.insert(user.container);
        self.by_container.move_guest(user.guest, user.container);
        let none = PageSet::new(self.resident.pages());
        self.sharers.entry(seq).or_insert(Sharer { user, pages: none }).user = user;
    }

    /// A guest is gone, and maps nothing any more.
    pub fn leave(&mut self, seq: GuestSeq) {
        let none = PageSet::new(self.resident.pages());
        self.apply(&Seen { resident: None, mapped: [(seq, none)].into() });
        self.sharers.remove(&seq);
    }

    /// Existing charges of a guest move to another container.
    pub fn move_charges(&mut self, seq: GuestSeq, to: ContainerId) {
        let Some(sharer) = self.sharers.get_mut(&seq) else { return };
        self.payers.insert(to);
        sharer.user.container = to;
        for run in sharer.pages.runs() {
            self.by_container.move_charge(run, sharer.user.guest, to);
        }
        self.by_container.move_guest(sharer.user.guest, to);
    }

    /// A container is gone: its charges move to the pool.
    pub fn remove(&mut self, container: ContainerId) {
        if self.payers.remove(&container) {
            self.by_container.remove(container);
        }
    }

    /// Time passes: the accounting system gives a container time before a charge that others caused counts against its
    /// limit.
    pub fn advance(&mut self, now_ms: u64) {
        self.by_container.advance(now_ms);
    }

    /// Takes a sample into account. Returns how many runs of pages each guest began or ceased to map: the cost of this
    /// call.
    pub fn apply(&mut self, seen: &Seen) -> BTreeMap<GuestSeq, u64> {
        let resident = seen.resident.clone().unwrap_or_else(|| self.resident.clone());
        let (before, mapped_before) = (self.resident.clone(), self.mapped.clone());
        let next =
            |seq: &GuestSeq, sharer: &Sharer| seen.mapped.get(seq).unwrap_or(&sharer.pages).and(&resident);
        let next: Vec<PageSet> = self.sharers.iter().map(|(seq, sharer)| next(seq, sharer)).collect();

        // Guests that unmap come first, so that no guest is charged for a page that is gone with this very sample.
        let mut kept = PageSet::new(resident.pages());
        let mut books = Books([&mut self.by_container, &mut self.by_guest]);
        let mut runs: BTreeMap<GuestSeq, u64> = BTreeMap::new();
        for ((seq, sharer), next) in self.sharers.iter_mut().zip(&next) {
            let told = books.unshare(&sharer.pages.minus(next), sharer.user.guest);
            *runs.entry(*seq).or_default() += told;
            sharer.pages = sharer.pages.and(next);
            kept.add(&sharer.pages);
        }
        books.share(&mapped_before.minus(&kept), POOL_USER);
        books.free(&before.minus(&resident));
        books.touch(&resident.minus(&before));

        let mut mapped = kept.clone();
        for ((seq, sharer), next) in self.sharers.iter_mut().zip(next) {
            *runs.entry(*seq).or_default() += books.share(&next.minus(&sharer.pages), sharer.user);
            mapped.add(&next);
            sharer.pages = next;
        }
        books.unshare(&mapped.minus(&kept), POOL_USER.guest);
        (self.resident, self.mapped) = (resident, mapped);
        runs
    }

    /// The charge of each container, units; the pool's own under [`POOL`].
    pub fn charges(&self) -> impl Iterator<Item = (ContainerId, u64)> + '_ {
        self.payers.iter().map(|payer| (*payer, self.charged(&*self.by_container, *payer)))
    }

    /// The part of a container's charge that counts against its limit now, units.
    #[must_use]
    pub fn enforceable(&self, container: ContainerId) -> u64 {
        self.by_container.enforceable(container)
    }

    /// The charge of a guest if it were a container of its own, units.
    #[must_use]
    pub fn charged_to_guest(&self, guest: GuestId) -> u64 {
        self.charged(&*self.by_guest, ContainerId(guest.0))
    }

    /// Page cache is not given in zones: pages that are not resident in the zones of the pool are not charged.
    fn charged(&self, books: &dyn Accounting, payer: ContainerId) -> u64 {
        let charged = books.charged(payer);
        if payer == POOL { charged.saturating_sub(books.fragmentation()) } else { charged }
    }

    /// Units by which the charges differ from the resident pages. Must be 0 except with `rss`, where every sharer is
    /// charged for all pages that it maps.
    #[must_use]
    pub fn unbalanced(&self) -> u64 {
        let charged = self.charges().fold(0u64, |sum, (_, units)| sum.saturating_add(units));
        charged.abs_diff(self.resident.count() * UNITS_PER_FRAME)
    }

    /// Pages that the host holds.
    #[must_use]
    pub fn resident(&self) -> &PageSet {
        &self.resident
    }

    /// Resident pages that guests map.
    #[must_use]
    pub fn mapped(&self) -> &PageSet {
        &self.mapped
    }

    /// Pages that a guest maps.
    #[must_use]
    pub fn mapped_by(&self, seq: GuestSeq) -> Option<&PageSet> {
        self.sharers.get(&seq).map(|sharer| &sharer.pages)
    }

    /// How many pages each guest maps.
    pub fn sharers(&self) -> impl Iterator<Item = (GuestSeq, u64)> + '_ {
        self.sharers.iter().map(|(seq, sharer)| (*seq, sharer.pages.count()))
    }

    /// What the books take, bytes.
    #[must_use]
    pub fn storage_bytes(&self) -> usize {
        self.by_container.storage_bytes() + self.by_guest.storage_bytes()
    }
}

/// Both instances of the accounting system, which get the same transitions.
struct Books<'a>([&'a mut Box<dyn Accounting>; 2]);

impl Books<'_> {
    fn touch(&mut self, pages: &PageSet) {
        self.each(pages, |books, run, _| books.touch(run, POOL_USER, Kind::Pool));
    }

    fn share(&mut self, pages: &PageSet, by: User) -> u64 {
        self.each(pages, |books, run, own| {
            let alone = User { container: ContainerId(by.guest.0), ..by };
            let user = if own && by != POOL_USER { alone } else { by };
            books.share(run, user);
        })
    }

    fn unshare(&mut self, pages: &PageSet, guest: GuestId) -> u64 {
        self.each(pages, |books, run, _| books.unshare(run, guest))
    }

    fn free(&mut self, pages: &PageSet) {
        self.each(pages, |books, run, _| books.free(run, Some(POOL_USER.guest)));
    }

    /// Applies a transition of each run to both, and returns the number of runs.
    fn each(&mut self, pages: &PageSet, event: impl Fn(&mut dyn Accounting, Run, bool)) -> u64 {
        let mut runs = 0;
        for run in pages.runs() {
            runs += 1;
            let [containers, guests] = &mut self.0;
            event(&mut ***containers, run, false);
            event(&mut ***guests, run, true);
        }
        runs
    }
}

#[cfg(test)]
#[path = "ledger_test.rs"]
mod tests;
