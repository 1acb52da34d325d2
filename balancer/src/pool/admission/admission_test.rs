use super::*;
use crate::pool::{Managed, Pagecache};
use accounting::ContainerId;
use proptest::prelude::*;
use protocol::frames::{FrameReader, FrameTable, Region};
use protocol::image::Digest;
use std::collections::{BTreeMap, BTreeSet};

const GRANULES: u64 = 32;

fn key(image: u8, domain: &str) -> Key {
    Key { digest: Digest::new([image; 32]), domain: domain.parse().unwrap() }
}

fn backing() -> Arc<dyn PoolBacking> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(2 << 20).unwrap();
    Arc::new(Managed::new(Arc::new(Pagecache::new(file).unwrap())).unwrap())
}

/// A pool and its guests, which unmap when they are told to.
struct World {
    pool: Pool,
    now: Instant,
    tables: Vec<FrameTable>,
    /// Granules that each guest was given.
    held: BTreeMap<u64, BTreeSet<(Key, u64)>>,
    budget: u64,
}

impl World {
    fn new(budget: u64, guests: &[(u64, &[&Key])]) -> Self {
        let now = Instant::now();
        let mut world =
            Self { pool: Pool::new(System::Static, now), now, tables: vec![], held: BTreeMap::new(), budget };
        for (seq, keys) in guests {
            for key in *keys {
                if world.pool.get(key).is_none() {
                    world.pool.open(key, "/tree", backing(), now).unwrap();
                }
                let table = FrameTable::new(&[Region::ram(0, 512), Region::image(1 << 20, 512)]).unwrap();
                let reader = Arc::new(FrameReader::open(table.fd()).unwrap());
                world.tables.push(table);
                let container = ContainerId(10 + u16::try_from(*seq).unwrap());
                assert!(world.pool.join(
                    key,
                    GuestSeq(*seq),
                    &format!("g{seq}"),
                    container,
                    (reader, 1 << 20),
                    now
                ));
            }
            world.held.insert(*seq, BTreeSet::new());
        }
        world
    }

    /// Unmaps as guests are told to.
    fn unmap(&mut self, evictions: Vec<Eviction>) {
        for Eviction { guest, key, granule } in evictions {
            self.held.get_mut(&guest.0).unwrap().remove(&(key.clone(), granule.0));
            self.pool.unmapped(guest, &key, granule);
        }
    }

    /// Asks as a `vmm` does until it has the granule, at most 8 times. True if it got it.
    fn ask(&mut self, seq: u64, key: &Key, granule: u64) -> bool {
        let (guest, index) = (GuestSeq(seq), GranuleIndex(granule));
        for _ in 0..8 {
            let budget = Some(self.budget * GRANULE_BYTES);
            let (asked, evictions) = self.pool.ask(guest, key, index, budget, self.now);
            self.unmap(evictions);
            match asked {
                Asked::There => {
                    self.held.get_mut(&seq).unwrap().insert((key.clone(), granule));
                    return true;
                }
                Asked::Fill(backing) => {
                    let done = backing.as_managed().unwrap().fill(index).is_ok();
                    self.pool.filled(guest, key, index, &backing, done);
                    self.held.get_mut(&seq).unwrap().insert((key.clone(), granule));
                    return done;
                }
                Asked::Later(wait) => self.now += wait,
                Asked::Wait => {}
                Asked::Full | Asked::Unknown => return false,
            }
        }
        false
    }

    fn count(&self, seq: u64) -> u64 {
        self.held[&seq].len() as u64
    }

    /// Granules, ledger and kernel agree, and the budget holds.
    fn check(&self) {
        let mut all = 0;
        for (key, image) in self.pool.iter() {
            let kernel = image.backing.resident().unwrap();
            assert_eq!(&kernel, image.ledger.resident(), "the ledger and the kernel");
            let managed = image.backing.as_managed().unwrap();
            assert_eq!(managed.held_bytes().unwrap(), image.resident_bytes(), "the kernel's blocks");
            assert_eq!(image.granules.count() * GRANULE_BYTES, image.resident_bytes());
            all += image.granules.count();
            for (GuestSeq(seq), pages) in image.ledger.sharers() {
                let own = self.held[&seq].iter().filter(|(other, _)| other == key).count() as u64;
                assert_eq!(pages, own * 16, "guest {seq}");
            }
        }
        assert!(all <= self.budget, "{all} granules in a budget of {}", self.budget);
        assert_eq!(self.pool.uncharged_frames(), 0);
        assert_eq!(self.pool.charges().values().sum::<u64>(), all * GRANULE_BYTES);
    }
}

#[test]
fn the_first_to_ask_pays_and_the_next_one_shares() {
    let key = key(1, "web");
    let mut world = World::new(GRANULES, &[(1, &[&key]), (2, &[&key])]);
    // The second to register is the first to come.
    assert!(world.ask(2, &key, 3) && world.ask(1, &key, 3) && world.ask(1, &key, 4));
    world.check();
    let charges = world.pool.charges().clone();
    assert_eq!(charges, [(ContainerId(11), GRANULE_BYTES), (ContainerId(12), GRANULE_BYTES)].into());
    world.pool.leave(GuestSeq(2), world.now);
    world.held.remove(&2);
    assert_eq!(world.pool.charges(), &[(ContainerId(11), 2 * GRANULE_BYTES)].into());
}

#[test]
fn a_granule_that_no_guest_holds_is_evicted_before_the_oldest_own_one() {
    let key = key(1, "web");
    let mut world = World::new(4, &[(1, &[&key])]);
    (0..4).for_each(|granule| assert!(world.ask(1, &key, granule)));
    world.pool.unmapped(GuestSeq(1), &key, GranuleIndex(2));
    world.held.get_mut(&1).unwrap().remove(&(key.clone(), 2));
    assert!(world.ask(1, &key, 9));
    let left = |world: &World| world.held[&1].iter().map(|(_, granule)| *granule).collect::<Vec<_>>();
    assert_eq!(left(&world), [0, 1, 3, 9]);
    assert!(world.ask(1, &key, 10));
    assert_eq!(left(&world), [1, 3, 9, 10]);
    world.check();
}

#[test]
fn a_domain_keeps_its_share_against_many_guests_of_another() {
    let (web, evil) = (key(1, "web"), key(1, "evil"));
    let guests: [(u64, &[&Key]); 5] =
        [(1, &[&evil]), (2, &[&evil]), (3, &[&evil]), (4, &[&evil]), (9, &[&web])];
    let mut world = World::new(16, &guests);
    let thrash = |world: &mut World| {
        for granule in 0..GRANULES {
            for seq in 1..=4 {
                assert!(
                    world.ask(seq, &evil, (granule + seq * 8) % GRANULES),
                    "it goes on, inside its share"
                );
            }
        }
    };
    thrash(&mut world);
    assert_eq!(world.count(9), 0);
    for granule in 0..8 {
        assert!(world.ask(9, &web, granule), "granules beyond the others' share are evicted");
        world.check();
    }
    thrash(&mut world);
    assert_eq!(world.count(9), 8, "and they stay");
    // Beyond its share it evicts its own granules only.
    assert!(world.ask(9, &web, 20));
    assert_eq!(world.count(9), 8);
    world.check();
}

#[test]
fn a_guest_is_not_charged_for_shared_granules_and_does_not_block_their_payer() {
    let key = key(1, "web");
    let mut world = World::new(8, &[(1, &[&key]), (2, &[&key])]);
    (0..8).for_each(|granule| assert!(world.ask(1, &key, granule) && world.ask(2, &key, granule)));
    assert_eq!(world.pool.charges(), &[(ContainerId(11), 8 * GRANULE_BYTES)].into());
    // All granules are shared: their payer still gets room for a new one.
    assert!(world.ask(1, &key, 20));
    world.check();
}

#[test]
fn filling_has_a_burst_and_a_rate() {
    let key = key(1, "web");
    let mut world = World::new(1, &[(1, &[&key])]);
    let begun = world.now;
    for turn in 0..u64::from(FILL_BURST) + u64::from(FILL_RATE) {
        assert!(world.ask(1, &key, turn % GRANULES));
    }
    let took = world.now - begun;
    assert!((Duration::from_millis(990)..Duration::from_millis(1010)).contains(&took), "{took:?}");
}

#[test]
fn room_of_a_guest_that_does_not_unmap_is_not_used_and_the_guest_is_overdue() {
    let (web, evil) = (key(1, "web"), key(1, "evil"));
    let mut world = World::new(4, &[(1, &[&evil]), (2, &[&web])]);
    (0..4).for_each(|granule| assert!(world.ask(1, &evil, granule)));
    let budget = Some(4 * GRANULE_BYTES);
    let (asked, evictions) = world.pool.ask(GuestSeq(2), &web, GranuleIndex(0), budget, world.now);
    assert!(matches!(asked, Asked::Wait) && evictions.len() == 1, "{asked:?}");
    world.now += UNMAP_DEADLINE;
    assert!(world.pool.overdue(world.now).is_empty());
    assert!(matches!(world.pool.ask(GuestSeq(2), &web, GranuleIndex(0), budget, world.now).0, Asked::Wait));
    world.now += Duration::from_millis(1);
    assert_eq!(world.pool.overdue(world.now), [GuestSeq(1)]);
    world.pool.leave(GuestSeq(1), world.now);
    world.held.get_mut(&1).unwrap().clear();
    assert!(world.ask(2, &web, 0));
    world.check();
}

#[test]
fn a_smaller_budget_is_kept_at_once() {
    let key = key(1, "web");
    let mut world = World::new(8, &[(1, &[&key])]);
    (0..8).for_each(|granule| assert!(world.ask(1, &key, granule)));
    world.pool.unmapped(GuestSeq(1), &key, GranuleIndex(7));
    world.held.get_mut(&1).unwrap().remove(&(key.clone(), 7));
    let evictions = world.pool.shrink(POOL, 3 * GRANULE_BYTES, world.now);
    assert_eq!(evictions.iter().map(|eviction| eviction.granule.0).collect::<Vec<_>>(), [0, 1, 2, 3]);
    world.unmap(evictions);
    world.budget = 3;
    world.check();
}

#[test]
fn a_granule_or_image_that_does_not_exist_is_unknown() {
    let (mine, other) = (key(1, "web"), key(2, "web"));
    let mut world = World::new(8, &[(1, &[&mine]), (2, &[&other])]);
    for (seq, key, granule) in [(1, &other, 0), (1, &mine, GRANULES), (1, &mine, u64::MAX), (7, &mine, 0)] {
        let asked = world.pool.ask(GuestSeq(seq), key, GranuleIndex(granule), None, world.now).0;
        assert!(matches!(asked, Asked::Unknown), "{asked:?}");
    }
    assert!(
        !world.pool.unmapped(GuestSeq(1), &mine, GranuleIndex(5))
            && !world.pool.unmapped(GuestSeq(2), &mine, GranuleIndex(u64::MAX))
    );
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn granules_ledger_and_kernel_agree_whatever_guests_do(
        budget in 2u64..40,
        steps in prop::collection::vec((1u64..5, 0u8..2, 0..GRANULES, 0u8..10), 1..120),
    ) {
        let keys = [key(1, "web"), key(2, "web"), key(1, "evil"), key(2, "evil")];
        let of = |seq: u64, image: u8| &keys[usize::from(image) + if seq > 2 { 2 } else { 0 }];
        let guests: Vec<(u64, [&Key; 2])> = (1..5).map(|seq| (seq, [of(seq, 0), of(seq, 1)])).collect();
        let guests: Vec<(u64, &[&Key])> = guests.iter().map(|(seq, keys)| (*seq, &keys[..])).collect();
        let mut world = World::new(budget, &guests);
        for (seq, image, granule, what) in steps {
            let key = of(seq, image);
            match what {
                0 => {
                    world.pool.release(GuestSeq(seq));
                    world.held.get_mut(&seq).unwrap().clear();
                }
                1 | 2 => {
                    world.pool.unmapped(GuestSeq(seq), key, GranuleIndex(granule));
                    world.held.get_mut(&seq).unwrap().remove(&(key.clone(), granule));
                }
                _ => drop(world.ask(seq, key, granule)),
            }
            world.check();
        }
    }
}
