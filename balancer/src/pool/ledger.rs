//! Who pays for the pages of one image in one trust domain: residency and sharers as sampled, told to the host's accounting
//! system as the transitions that lie between two samples.
//!
//! ```text
//!                 touch by the pool        share by the first guest     share by others
//!    not there --------------------> the pool's own ----------> one guest's ----------> several
//!        ^                               |     ^                                            |
//!        +------------- free ------------+     +------- unshare by the last guest ----------+
//! ```
//!
//! A page that nobody maps is the pool's, and nobody's who used it before. Where several guests came within one
//! interval, the one that registered first came first. The tables of guests are hostile: what they call shared counts
//! only while the kernel says that it is resident, so no table makes the charges differ from what the host holds.
//!
//! The same events are told to a second set of books in which every guest is a container of its own: what each guest
//! would pay for itself.

use super::page_set::PageSet;
use accounting::{
    Accounting, ContainerId, GuestId, Kind, POOL, POOL_USER, Run, System, UNITS_PER_FRAME, User,
};
use std::collections::{BTreeMap, BTreeSet};

/// A guest that maps the image.
#[derive(Debug)]
struct Sharer {
    user: User,
    /// What it maps of what is resident.
    pages: PageSet,
}

/// The books of one image.
#[derive(Debug)]
pub struct ImageLedger {
    by_container: Box<dyn Accounting>,
    by_guest: Box<dyn Accounting>,
    resident: PageSet,
    /// By the order in which they registered.
    sharers: BTreeMap<u64, Sharer>,
    /// What at least one of them maps.
    mapped: PageSet,
    /// Everybody who paid since the image came.
    payers: BTreeSet<ContainerId>,
}

/// What was seen at one moment. `None`, and guests that are missing, were not looked at: they are as they were.
#[derive(Debug, Default)]
pub struct Seen {
    /// Pages that the host holds.
    pub resident: Option<PageSet>,
    /// Pages that guests map by their own word, by the order in which they registered.
    pub mapped: BTreeMap<u64, PageSet>,
}

impl ImageLedger {
    /// The books of an image of so many pages, of which none is resident.
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

    /// A guest has it among its regions; what it touches is charged as this user says.
    pub fn join(&mut self, order: u64, user: User) {
        self.payers.insert(user.container);
        self.by_container.move_guest(user.guest, user.container);
        let none = PageSet::new(self.resident.pages());
        self.sharers.entry(order).or_insert(Sharer { user, pages: none }).user = user;
    }

    /// A guest is gone, and with it all that it mapped.
    pub fn leave(&mut self, order: u64) {
        let none = PageSet::new(self.resident.pages());
        self.apply(&Seen { resident: None, mapped: [(order, none)].into() });
        self.sharers.remove(&order);
    }

    /// What a guest is charged for already moves to another container.
    pub fn move_charges(&mut self, order: u64, to: ContainerId) {
        let Some(sharer) = self.sharers.get_mut(&order) else { return };
        self.payers.insert(to);
        sharer.user.container = to;
        for run in sharer.pages.runs() {
            self.by_container.move_charge(run, sharer.user.guest, to);
        }
        self.by_container.move_guest(sharer.user.guest, to);
    }

    /// A container is gone: what is left of it is the pool's.
    pub fn remove(&mut self, container: ContainerId) {
        if self.payers.remove(&container) {
            self.by_container.remove(container);
        }
    }

    /// Time passes, for the grace of what others did to a charge.
    pub fn advance(&mut self, now_ms: u64) {
        self.by_container.advance(now_ms);
    }

    /// Takes a sample into account. Returns how many runs of pages each guest began or ceased to map, which is what that costs.
    pub fn apply(&mut self, seen: &Seen) -> BTreeMap<u64, u64> {
        let resident = seen.resident.clone().unwrap_or_else(|| self.resident.clone());
        let (before, mapped_before) = (self.resident.clone(), self.mapped.clone());
        let next =
            |order: &u64, sharer: &Sharer| seen.mapped.get(order).unwrap_or(&sharer.pages).and(&resident);
        let next: Vec<PageSet> = self.sharers.iter().map(|(order, sharer)| next(order, sharer)).collect();

        // Who leaves goes first, so that nobody is charged for what goes with this very sample.
        let mut kept = PageSet::new(resident.pages());
        let mut books = Books([&mut self.by_container, &mut self.by_guest]);
        let mut runs: BTreeMap<u64, u64> = BTreeMap::new();
        for ((order, sharer), next) in self.sharers.iter_mut().zip(&next) {
            let told = books.unshare(&sharer.pages.minus(next), sharer.user.guest);
            *runs.entry(*order).or_default() += told;
            sharer.pages = sharer.pages.and(next);
            kept.add(&sharer.pages);
        }
        books.share(&mapped_before.minus(&kept), POOL_USER);
        books.free(&before.minus(&resident));
        books.touch(&resident.minus(&before));

        let mut mapped = kept.clone();
        for ((order, sharer), next) in self.sharers.iter_mut().zip(next) {
            *runs.entry(*order).or_default() += books.share(&next.minus(&sharer.pages), sharer.user);
            mapped.add(&next);
            sharer.pages = next;
        }
        books.unshare(&mapped.minus(&kept), POOL_USER.guest);
        (self.resident, self.mapped) = (resident, mapped);
        runs
    }

    /// What each container is charged, units; the pool's own part under [`POOL`].
    pub fn charges(&self) -> impl Iterator<Item = (ContainerId, u64)> + '_ {
        self.payers.iter().map(|payer| (*payer, self.charged(&*self.by_container, *payer)))
    }

    /// The part of a container's charge that counts against its limit now, units.
    #[must_use]
    pub fn enforceable(&self, container: ContainerId) -> u64 {
        self.by_container.enforceable(container)
    }

    /// What a guest would pay if it were a container of its own, units.
    #[must_use]
    pub fn charged_to_guest(&self, guest: GuestId) -> u64 {
        self.charged(&*self.by_guest, ContainerId(guest.0))
    }

    /// Page cache is not handed out in zones: what is not resident in the zones of the pool is not charged.
    fn charged(&self, books: &dyn Accounting, payer: ContainerId) -> u64 {
        let charged = books.charged(payer);
        if payer == POOL { charged.saturating_sub(books.fragmentation()) } else { charged }
    }

    /// By how many units the charges differ from what is resident. Must be 0 but for `rss`, where every sharer pays
    /// for all that it maps.
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

    /// Pages of those that guests map.
    #[must_use]
    pub fn mapped(&self) -> &PageSet {
        &self.mapped
    }

    /// Pages that a guest maps.
    #[must_use]
    pub fn mapped_by(&self, order: u64) -> Option<&PageSet> {
        self.sharers.get(&order).map(|sharer| &sharer.pages)
    }

    /// How many pages each guest maps, by the order in which they registered.
    pub fn sharers(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.sharers.iter().map(|(order, sharer)| (*order, sharer.pages.count()))
    }

    /// What the books take, bytes.
    #[must_use]
    pub fn storage_bytes(&self) -> usize {
        self.by_container.storage_bytes() + self.by_guest.storage_bytes()
    }
}

/// Both sets of books, which hear the same.
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

    /// Tells both of each run, and returns how many there were.
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
