use super::*;
use crate::pool::{PageSet, Stamp};
use accounting::{POOL, Run};
use protocol::frames::{FrameTable, Region, State};
use protocol::image::Backing;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::time::Duration;

const PAGES: u64 = 1024;
const FIRST: u64 = 1 << 15;
const A: ContainerId = ContainerId(7);
const B: ContainerId = ContainerId(8);
const C: ContainerId = ContainerId(9);

/// Memory with the resident pages that a test sets. It evicts pages that are not mapped.
#[derive(Debug)]
struct Fake {
    resident: Mutex<PageSet>,
    pinned: Mutex<PageSet>,
    stamp: Mutex<Stamp>,
}

impl Fake {
    fn new(inode: u64) -> Arc<Self> {
        let stamp = Stamp { inode: (1, inode), changed_at: (5, 0), bytes: PAGES * FRAME_BYTES, links: 1 };
        Arc::new(Self {
            resident: Mutex::new(PageSet::new(PAGES)),
            pinned: Mutex::new(PageSet::new(PAGES)),
            stamp: Mutex::new(stamp),
        })
    }

    fn hold(&self, first: u64, count: u64) {
        self.resident.lock().unwrap().insert(Run { first, count });
    }
}

impl PoolBacking for Fake {
    fn kind(&self) -> Backing {
        Backing::Pagecache
    }

    fn bytes(&self) -> u64 {
        PAGES * FRAME_BYTES
    }

    fn open_for_guest(&self) -> io::Result<File> {
        Err(io::Error::other("no test asks"))
    }

    fn resident(&self) -> io::Result<PageSet> {
        Ok(self.resident.lock().unwrap().clone())
    }

    fn evict(&self, run: Run) -> io::Result<()> {
        let mut gone = PageSet::new(PAGES);
        gone.insert(run);
        let mut resident = self.resident.lock().unwrap();
        *resident = resident.minus(&gone.minus(&self.pinned.lock().unwrap()));
        Ok(())
    }

    fn stamp(&self) -> io::Result<Stamp> {
        Ok(*self.stamp.lock().unwrap())
    }
}

struct Host {
    pool: Pool,
    now: Instant,
    tables: BTreeMap<u64, FrameTable>,
}

impl Host {
    fn new(system: System) -> Self {
        let now = Instant::now();
        Self { pool: Pool::new(system, now), now, tables: BTreeMap::new() }
    }

    fn key(image: u8, domain: &str) -> Key {
        Key { digest: Digest::new([image; 32]), domain: domain.parse().unwrap() }
    }

    fn open(&mut self, key: &Key, inode: u64) -> Arc<Fake> {
        let fake = Fake::new(inode);
        self.pool.open(key, "/srv/image", Arc::clone(&fake) as Arc<dyn PoolBacking>, self.now).unwrap();
        fake
    }

    fn join(&mut self, key: &Key, seq: u64, container: ContainerId) {
        let table = FrameTable::new(&[Region::ram(0, 512), Region::image(FIRST, PAGES)]).unwrap();
        let reader = Arc::new(FrameReader::open(table.fd().as_fd()).unwrap());
        self.tables.insert(seq, table);
        let name = format!("guest{seq}");
        assert!(self.pool.join(key, GuestSeq(seq), &name, container, (reader, FIRST), self.now));
    }

    fn map(&self, seq: u64, first: u64, count: u64) {
        assert_eq!(self.tables[&seq].set(FIRST + first, count, State::Shared).changed, count);
    }

    /// Takes a sample, and asserts that all resident pages are charged.
    fn sample(&mut self) -> Vec<(Key, String)> {
        self.now += Duration::from_secs(10);
        let answers = self.pool.due(self.now, false).run();
        let wrong = self.pool.apply(answers, self.now);
        let resident: u64 = self.pool.iter().map(|(_, image)| image.resident_bytes()).sum();
        assert_eq!(self.pool.charges().values().sum::<u64>(), resident);
        assert_eq!(self.pool.uncharged_frames(), 0);
        wrong
    }

    fn pages(&self, payer: ContainerId) -> u64 {
        self.pool.charges().get(&payer).copied().unwrap_or(0) / FRAME_BYTES
    }
}

#[test]
fn thirds_of_a_page_sum_to_the_resident_memory() {
    let mut host = Host::new(System::Partial);
    let key = Host::key(1, "web");
    host.open(&key, 1).hold(0, 100);
    for (seq, container) in [(1, A), (2, B), (3, C)] {
        host.join(&key, seq, container);
        host.map(seq, 0, 100);
    }
    host.sample();
    for container in [A, B, C] {
        let bytes = host.pool.charges()[&container];
        assert!((100 * 4096 / 3 - 4..=100 * 4096 / 3).contains(&bytes), "{bytes}");
    }
    assert!(host.pool.charges()[&POOL] > 0, "remainders are the pool's");
    let image = host.pool.get(&key).unwrap();
    assert_eq!((image.mapped_bytes(), host.pool.mapped_by(GuestSeq(2))), (100 * 4096, 100 * 4096));
    assert!(host.pool.charged_to_guest(GuestSeq(2)).abs_diff(100 * 4096 / 3) < 4);
}

#[test]
fn a_bound_image_is_charged_whole_to_its_container_under_every_system() {
    for system in System::ALL {
        let mut host = Host::new(system);
        let key = Host::key(1, "web");
        host.open(&key, 1).hold(0, 100);
        host.join(&key, 1, A);
        host.map(1, 0, 60);
        host.sample();
        let by_rule = host.pages(A);
        host.pool.rebind(|_, origin| (origin == "/srv/image").then_some(B));
        host.sample();
        assert_eq!((host.pages(A), host.pages(B), host.pages(POOL)), (0, 100, 0), "{system:?}");
        assert_eq!(host.pool.enforceable_bytes(B), 100 * 4096);
        assert_eq!((host.pool.pinned_bytes(B), host.pool.unmapped_bytes(B)), (60 * 4096, 40 * 4096));
        host.pool.rebind(|_, _| None);
        assert_eq!((host.pages(A), host.pages(B)), (by_rule, 0), "{system:?}");
    }
}

#[test]
fn a_guest_that_moves_takes_its_charges_along_or_leaves_them() {
    let mut host = Host::new(System::Static);
    let key = Host::key(1, "web");
    host.open(&key, 1).hold(0, 100);
    host.join(&key, 1, A);
    host.map(1, 0, 50);
    host.sample();
    host.pool.charge(GuestSeq(1), B, false);
    host.map(1, 50, 10);
    host.sample();
    assert_eq!((host.pages(A), host.pages(B), host.pages(POOL)), (50, 10, 40));
    host.pool.charge(GuestSeq(1), C, true);
    assert_eq!((host.pages(A), host.pages(B), host.pages(C)), (0, 0, 60));
    host.pool.remove(C);
    assert_eq!((host.pages(C), host.pages(POOL)), (0, 100), "what is left of a container is the pool's");
}

#[test]
fn equal_images_of_two_domains_are_held_twice_and_it_is_told_what_that_costs() {
    let mut host = Host::new(System::Static);
    let (web, db) = (Host::key(1, "web"), Host::key(1, "db"));
    let (one, two) = (host.open(&web, 1), host.open(&db, 2));
    one.hold(0, 100);
    two.hold(60, 100);
    host.open(&Host::key(2, "db"), 3).hold(0, 500);
    host.sample();
    assert_eq!(host.pool.would_have_saved_bytes(), 40 * 4096);
    assert_eq!(host.pages(POOL), 700);
}

#[test]
fn only_what_nobody_maps_is_let_go_and_of_images_without_guests_first() {
    let mut host = Host::new(System::Static);
    let (used, unused) = (Host::key(1, "web"), Host::key(2, "web"));
    let (one, two) = (host.open(&used, 1), host.open(&unused, 2));
    one.hold(0, 100);
    two.hold(0, 100);
    host.join(&used, 1, A);
    host.map(1, 0, 70);
    one.pinned.lock().unwrap().insert(Run { first: 0, count: 70 });
    host.sample();
    assert_eq!(host.pool.unmapped_bytes(POOL), 130 * 4096);
    host.pool.evict(POOL, 110 * 4096);
    host.sample();
    let held = |host: &Host, key| host.pool.get(key).unwrap().resident_bytes() / 4096;
    assert_eq!((held(&host, &used), held(&host, &unused)), (90, 0));
    host.pool.evict(POOL, u64::MAX);
    host.sample();
    assert_eq!((held(&host, &used), host.pages(A), host.pages(POOL)), (70, 70, 0));
}

#[test]
fn pages_that_the_kernel_keeps_next_to_a_mapped_page_do_not_hide_pages_that_it_evicts() {
    let mut host = Host::new(System::Static);
    let key = Host::key(1, "web");
    let fake = host.open(&key, 1);
    fake.hold(0, 100);
    host.join(&key, 1, A);
    host.map(1, 0, 1);
    // A large folio at the front.
    fake.pinned.lock().unwrap().insert(Run { first: 0, count: 16 });
    host.sample();
    let held = |host: &Host| host.pool.get(&key).unwrap().resident_bytes() / 4096;
    // The first turn is spent on what stays; the next ones know.
    for (left, kept) in [(100, 10), (95, 15)] {
        host.pool.evict(POOL, 10 * 4096);
        host.sample();
        assert_eq!((held(&host), host.pool.kept_bytes(POOL) / 4096), (left, kept));
    }
    host.pool.evict(POOL, u64::MAX);
    host.sample();
    assert_eq!((host.pool.unmapped_bytes(POOL), host.pool.kept_bytes(POOL)), (0, 15 * 4096));
    // It is tried again after a while, and at once when a guest goes.
    *fake.pinned.lock().unwrap() = PageSet::new(PAGES);
    for _ in 0..3 {
        host.sample();
    }
    assert_eq!(host.pool.unmapped_bytes(POOL), 15 * 4096);
    host.pool.evict(POOL, u64::MAX);
    host.sample();
    assert_eq!((held(&host), host.pool.kept_bytes(POOL)), (1, 0));
}

#[test]
fn a_changed_file_is_reported_once_and_another_one_is_refused_while_the_first_is_mapped() {
    let mut host = Host::new(System::Static);
    let key = Host::key(1, "web");
    let fake = host.open(&key, 1);
    host.join(&key, 1, A);
    assert!(host.sample().is_empty());
    fake.stamp.lock().unwrap().changed_at = (6, 0);
    let wrong = host.sample();
    assert!(wrong.len() == 1 && wrong[0].1.contains("changed"), "{wrong:?}");
    assert!(host.sample().is_empty() && host.pool.get(&key).unwrap().changed.is_some());
    fake.stamp.lock().unwrap().bytes = 4096;
    assert!(host.sample()[0].1.contains("4K now"));
    fake.stamp.lock().unwrap().links = 0;
    assert!(host.sample()[0].1.contains("removed"));
    let other = || Fake::new(2) as Arc<dyn PoolBacking>;
    let error = host.pool.open(&key, "/srv/image", other(), host.now).unwrap_err().to_string();
    assert!(error.contains("guest1") && error.contains("another file"), "{error}");
    host.pool.leave(GuestSeq(1), host.now);
    host.pool.open(&key, "/srv/image", other(), host.now).unwrap();
    assert!(host.sample().is_empty() && host.pool.get(&key).unwrap().changed.is_none());
}

#[test]
fn a_guest_that_ends_drops_its_shares_and_an_image_without_any_is_let_go_in_the_end() {
    let mut host = Host::new(System::Static);
    let key = Host::key(1, "web");
    let fake = host.open(&key, 1);
    fake.hold(0, 10);
    for (seq, container) in [(1, A), (2, B)] {
        host.join(&key, seq, container);
        host.map(seq, 0, 10);
    }
    host.sample();
    assert_eq!((host.pages(A), host.pages(B)), (10, 0));
    host.pool.leave(GuestSeq(1), host.now);
    assert_eq!((host.pages(A), host.pages(B)), (0, 10), "the next by arrival");
    host.pool.leave(GuestSeq(2), host.now);
    assert_eq!((host.pages(B), host.pages(POOL)), (0, 10));
    assert!(!host.pool.has_guest(GuestSeq(1)) && !host.pool.has_guest(GuestSeq(2)));
    // The id of a guest that left is another's, and nothing is left of it.
    host.join(&key, 3, C);
    host.sample();
    assert_eq!((host.pool.mapped_by(GuestSeq(3)), host.pages(C)), (0, 0));
    host.pool.leave(GuestSeq(3), host.now);
    fake.evict(Run { first: 0, count: PAGES }).unwrap();
    for _ in 0..8 {
        host.sample();
    }
    assert!(host.pool.get(&key).is_none());
}

#[test]
fn a_table_that_is_costly_to_look_at_is_looked_at_less_often_and_no_other_is() {
    let mut host = Host::new(System::Static);
    let key = Host::key(1, "web");
    host.open(&key, 1).hold(0, PAGES);
    for seq in [1, 2] {
        host.join(&key, seq, A);
    }
    let mut answers = host.pool.due(host.now, false).run();
    for (seq, took) in &mut answers[0].took {
        *took = if *seq == GuestSeq(1) { Duration::from_millis(500) } else { Duration::ZERO };
    }
    host.pool.apply(answers, host.now);
    host.map(1, 0, 10);
    host.map(2, 0, 20);
    host.sample();
    assert_eq!((host.pool.mapped_by(GuestSeq(1)), host.pool.mapped_by(GuestSeq(2))), (0, 20 * 4096));
    let answers = host.pool.due(host.now, true).run();
    host.pool.apply(answers, host.now);
    assert_eq!(host.pool.mapped_by(GuestSeq(1)), 10 * 4096, "a request for all samples is served at once");
}

#[test]
fn a_removed_image_is_let_go_with_its_last_guest_and_nobody_is_alarmed() {
    let mut host = Host::new(System::Static);
    let key = Host::key(1, "web");
    let fake = host.open(&key, 1);
    fake.hold(0, 10);
    host.sample();
    fake.stamp.lock().unwrap().links = 0;
    assert!(host.sample().is_empty(), "nobody maps it");
    host.sample();
    assert!(host.pool.get(&key).is_none() && host.pool.charges().is_empty());
}

#[test]
fn what_tables_and_books_differ_by_is_in_the_error_whichever_is_late() {
    let mut host = Host::new(System::Static);
    let key = Host::key(1, "a");
    let file = host.open(&key, 1);
    file.resident.lock().unwrap().insert(Run { first: 0, count: PAGES });
    host.join(&key, 1, A);
    let bound = |host: &Host| host.pool.error_bytes() / FRAME_BYTES;
    host.tables[&1].checked_images(0);
    host.sample();
    assert_eq!(bound(&host), 0);
    // The books are late: the guest's vmm found 40 pages and says that no other is missing.
    host.map(1, 0, 40);
    host.tables[&1].checked_images(0);
    assert_eq!((host.pages(A), bound(&host)), (0, 40));
    host.sample();
    assert_eq!((host.pages(A), bound(&host)), (40, 0));
    // The table is late: it does not count 7 pages.
    host.tables[&1].checked_images(7);
    assert_eq!(bound(&host), 7);
    // The books are late again: 30 pages were unmapped.
    host.tables[&1].set(FIRST, 30, State::Untouched);
    host.tables[&1].checked_images(0);
    assert_eq!((host.pages(A), bound(&host)), (40, 30));
}
