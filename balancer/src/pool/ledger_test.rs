//! The ledger of an image against a model that looks at every page.

use super::*;
use proptest::prelude::*;

const PAGES: u64 = 700;
const GUESTS: u64 = 4;

fn user(guest: u64, container: u16) -> User {
    User { guest: GuestId(guest as u16 + 1), container: ContainerId(container) }
}

/// Users of each resident page in the order in which they came; `None` where it is not resident.
#[derive(Debug)]
struct Model {
    pages: Vec<Option<Vec<User>>>,
    users: BTreeMap<GuestSeq, User>,
}

impl Model {
    fn apply(&mut self, seen: &Seen) {
        for (page, users) in self.pages.iter_mut().enumerate() {
            let page = Run { first: page as u64, count: 1 };
            let has = |set: &PageSet| {
                let mut one = PageSet::new(PAGES);
                one.insert(page);
                !one.and(set).is_empty()
            };
            if let Some(resident) = &seen.resident {
                match (has(resident), &users) {
                    (true, None) => *users = Some(vec![]),
                    (false, _) => *users = None,
                    _ => {}
                }
            }
            let Some(users) = users else { continue };
            for (seq, set) in &seen.mapped {
                let Some(user) = self.users.get(seq) else { continue };
                if !has(set) {
                    users.retain(|other| other.guest != user.guest);
                } else if !users.iter().any(|other| other.guest == user.guest) {
                    users.push(*user);
                }
            }
        }
    }

    fn charges(&self, system: System) -> BTreeMap<ContainerId, u64> {
        let mut charges = BTreeMap::new();
        for users in self.pages.iter().flatten() {
            let mut payers: Vec<ContainerId> = users.iter().map(|user| user.container).collect();
            let mut charge = |payer, units| *charges.entry(payer).or_insert(0) += units;
            match system {
                System::Zones => charge(POOL, UNITS_PER_FRAME),
                System::Static => charge(payers.first().copied().unwrap_or(POOL), UNITS_PER_FRAME),
                System::Partial => {
                    payers.sort_unstable();
                    payers.dedup();
                    let part = UNITS_PER_FRAME.checked_div(payers.len() as u64).unwrap_or(0);
                    charge(POOL, UNITS_PER_FRAME - part * payers.len() as u64);
                    payers.into_iter().for_each(|payer| charge(payer, part));
                }
                System::Rss if payers.is_empty() => charge(POOL, UNITS_PER_FRAME),
                // A guest is charged as a whole to where it is now.
                System::Rss => users.iter().for_each(|user| {
                    let now = self.users.values().find(|now| now.guest == user.guest).unwrap();
                    charge(now.container, UNITS_PER_FRAME);
                }),
            }
        }
        charges.retain(|_, units| *units > 0);
        charges
    }

    fn resident(&self) -> u64 {
        self.pages.iter().flatten().count() as u64
    }
}

#[derive(Debug, Clone)]
enum Op {
    Seen(Option<PageSet>, BTreeMap<GuestSeq, PageSet>),
    Leave(GuestSeq),
    Move(GuestSeq, u16),
    Charge(GuestSeq, u16),
    Remove(u16),
}

fn pages() -> impl Strategy<Value = PageSet> {
    prop::collection::vec((0..PAGES, 1..200u64), 0..5).prop_map(|runs| {
        let mut set = PageSet::new(PAGES);
        runs.into_iter().for_each(|(first, count)| set.insert(Run { first, count }));
        set
    })
}

fn guest() -> impl Strategy<Value = GuestSeq> {
    (0..GUESTS).prop_map(GuestSeq)
}

fn op() -> impl Strategy<Value = Op> {
    let seen = (prop::option::of(pages()), prop::collection::btree_map(guest(), pages(), 0..4))
        .prop_map(|(resident, mapped)| Op::Seen(resident, mapped));
    prop_oneof![
        6 => seen,
        1 => guest().prop_map(Op::Leave),
        1 => (guest(), 1..4u16).prop_map(|(guest, to)| Op::Move(guest, to)),
        1 => (guest(), 1..4u16).prop_map(|(guest, to)| Op::Charge(guest, to)),
        1 => (1..4u16).prop_map(Op::Remove),
    ]
}

fn check(system: System, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut ledger = ImageLedger::new(system, PAGES);
    let mut model = Model { pages: vec![None; PAGES as usize], users: BTreeMap::new() };
    for op in ops {
        match op.clone() {
            Op::Seen(resident, mapped) => {
                for seq in
                    mapped.keys().filter(|seq| !model.users.contains_key(seq)).copied().collect::<Vec<_>>()
                {
                    let user = user(seq.0, seq.0 as u16 % 3 + 1);
                    model.users.insert(seq, user);
                    ledger.join(seq, user);
                }
                let seen = Seen { resident, mapped };
                ledger.apply(&seen);
                model.apply(&seen);
            }
            Op::Leave(seq) => {
                ledger.leave(seq);
                model.apply(&Seen { resident: None, mapped: [(seq, PageSet::new(PAGES))].into() });
                model.users.remove(&seq);
            }
            Op::Move(seq, to) => {
                ledger.move_charges(seq, ContainerId(to));
                if let Some(user) = model.users.get_mut(&seq) {
                    user.container = ContainerId(to);
                    let guest = user.guest;
                    let users = model.pages.iter_mut().flatten().flatten();
                    users
                        .filter(|user| user.guest == guest)
                        .for_each(|user| user.container = ContainerId(to));
                }
            }
            // Rss knows guests as a whole: no other container can be charged for what comes.
            Op::Charge(seq, to) if system != System::Rss => {
                if let Some(user) = model.users.get_mut(&seq) {
                    user.container = ContainerId(to);
                    ledger.join(seq, *user);
                }
            }
            // No guest is in a container that is removed.
            Op::Remove(container) if !model.users.values().any(|user| user.container.0 == container) => {
                ledger.remove(ContainerId(container));
                let users = model.pages.iter_mut().flatten().flatten();
                users.filter(|user| user.container.0 == container).for_each(|user| user.container = POOL);
            }
            Op::Charge(..) | Op::Remove(_) => {}
        }
        let charges: BTreeMap<ContainerId, u64> = ledger.charges().filter(|(_, units)| *units > 0).collect();
        prop_assert_eq!(&charges, &model.charges(system), "{:?} after {:?}", system, op);
        if system != System::Rss {
            prop_assert_eq!(ledger.unbalanced(), 0);
            let guests = (0..GUESTS).map(|guest| ledger.charged_to_guest(user(guest, 0).guest));
            let by_guest = guests.sum::<u64>() + ledger.charged(&*ledger.by_guest, POOL);
            prop_assert_eq!(by_guest, model.resident() * UNITS_PER_FRAME);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..Default::default() })]
    #[test]
    fn every_system_charges_as_the_model_does_and_all_that_is_resident(ops in prop::collection::vec(op(), 1..25)) {
        for system in System::ALL {
            check(system, &ops)?;
        }
    }
}

fn all() -> PageSet {
    PageSet::all(PAGES)
}

fn seen(resident: bool, mapped: &[u64]) -> Seen {
    Seen { resident: resident.then(all), mapped: mapped.iter().map(|seq| (GuestSeq(*seq), all())).collect() }
}

fn charged(ledger: &ImageLedger, container: u16) -> u64 {
    ledger.charges().find(|(payer, _)| payer.0 == container).map_or(0, |(_, units)| units / UNITS_PER_FRAME)
}

#[test]
fn the_first_to_touch_pays_until_it_leaves_then_the_next_by_arrival_and_then_the_pool() {
    let mut ledger = ImageLedger::new(System::Static, PAGES);
    (0..3).for_each(|seq| ledger.join(GuestSeq(seq), user(seq, seq as u16 + 1)));
    ledger.apply(&seen(true, &[]));
    assert_eq!(charged(&ledger, 0), PAGES, "nobody maps it");
    ledger.apply(&seen(true, &[2]));
    ledger.apply(&seen(true, &[0, 1, 2]));
    for (left, payer) in [(2, 3), (0, 1), (1, 2)] {
        assert_eq!(charged(&ledger, payer), PAGES);
        ledger.leave(GuestSeq(left));
        assert_eq!(charged(&ledger, payer), 0);
    }
    assert_eq!(charged(&ledger, 0), PAGES, "who no longer uses it pays no longer");
    assert_eq!(ledger.unbalanced(), 0);
}

#[test]
fn a_table_that_claims_what_is_not_resident_charges_nobody() {
    for system in System::ALL {
        let mut ledger = ImageLedger::new(system, PAGES);
        ledger.join(GuestSeq(0), user(0, 1));
        ledger.apply(&seen(false, &[0]));
        assert_eq!((charged(&ledger, 0), charged(&ledger, 1)), (0, 0), "{system:?}");
    }
}

#[test]
fn what_was_handed_over_counts_against_a_limit_by_and_by_and_what_was_given_up_at_once() {
    let mut ledger = ImageLedger::new(System::Static, PAGES);
    (0..2).for_each(|seq| ledger.join(GuestSeq(seq), user(seq, seq as u16 + 1)));
    ledger.apply(&seen(true, &[0, 1]));
    ledger.leave(GuestSeq(0));
    assert_eq!((charged(&ledger, 2), ledger.enforceable(ContainerId(2))), (PAGES, 0));
    ledger.advance(1 << 30);
    assert_eq!(ledger.enforceable(ContainerId(2)), PAGES * UNITS_PER_FRAME);
    ledger.leave(GuestSeq(1));
    assert_eq!(ledger.enforceable(ContainerId(2)), 0);
}
