//! The four systems against a model that tracks every frame, and their rules one by one.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const FRAMES: u64 = 1500;
const ZONE: u64 = 64;
const GUESTS: u16 = 5;
const CONTAINERS: [ContainerId; 4] = [POOL, ContainerId(1), ContainerId(2), ContainerId(3)];

/// The state of a frame.
#[derive(Debug, Clone, Default)]
struct Frame {
    resident: bool,
    /// In their order of arrival.
    users: Vec<User>,
    /// The last user.
    last: Option<User>,
}

/// A host that tracks every frame.
struct Model {
    frames: Vec<Frame>,
    zone_owner: BTreeMap<u64, ContainerId>,
    attached: Vec<ContainerId>,
}

#[derive(Debug, Clone)]
enum Op {
    Touch(Kind),
    Share,
    Unshare,
    Free,
    MoveGuest(u16),
    MoveCharge(u16),
}

fn op() -> impl Strategy<Value = (Op, u64, u64, u16)> {
    let op = prop_oneof![
        4 => prop_oneof![Just(Kind::Private), Just(Kind::Pool)].prop_map(Op::Touch),
        5 => Just(Op::Share),
        3 => Just(Op::Unshare),
        2 => Just(Op::Free),
        1 => (1u16..4).prop_map(Op::MoveGuest),
        1 => (1u16..4).prop_map(Op::MoveCharge),
    ];
    (op, 0..FRAMES, 1..700u64, 0..GUESTS)
}

impl Model {
    fn new() -> Self {
        let attached = (0..GUESTS).map(|guest| ContainerId(1 + guest % 3)).collect();
        Self { frames: vec![Frame::default(); FRAMES as usize], zone_owner: BTreeMap::new(), attached }
    }

    fn user(&self, guest: u16) -> User {
        User { guest: GuestId(guest), container: self.attached[usize::from(guest)] }
    }

    /// The parts of a run in which an event is a transition of every frame.
    fn legal(&self, op: &Op, first: u64, count: u64, guest: u16) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for at in first..(first + count).min(FRAMES) {
            let frame = &self.frames[at as usize];
            let maps = frame.users.iter().any(|user| user.guest.0 == guest);
            let legal = match op {
                Op::Touch(_) => !frame.resident,
                Op::Share => frame.resident && !maps,
                Op::Unshare => maps,
                Op::Free => frame.resident && (frame.users.is_empty() || maps && frame.users.len() == 1),
                Op::MoveGuest(_) => false,
                Op::MoveCharge(_) => true,
            };
            let same_end =
                |run: &Run| run.first + run.count == at && self.mapped(run.first) == self.mapped(at);
            match runs.last_mut() {
                Some(run) if legal && same_end(run) => run.count += 1,
                _ if legal => runs.push(Run { first: at, count: 1 }),
                _ => {}
            }
        }
        runs
    }

    fn mapped(&self, at: u64) -> bool {
        !self.frames[at as usize].users.is_empty()
    }

    fn apply(&mut self, op: &Op, run: Run, guest: u16) {
        let user = self.user(guest);
        for at in run.first..run.first + run.count {
            let zone = at / ZONE;
            let whole = |run: Run| run.first <= zone * ZONE && run.first + run.count >= (zone + 1) * ZONE;
            let frame = &mut self.frames[at as usize];
            match op {
                Op::Touch(kind) => {
                    *frame = Frame { resident: true, users: vec![user], last: Some(user) };
                    let owner = if *kind == Kind::Pool { POOL } else { user.container };
                    self.zone_owner.entry(zone).or_insert(owner);
                }
                Op::Share => {
                    frame.users.push(user);
                    frame.last = Some(user);
                }
                Op::Unshare => {
                    frame.last = frame.users.iter().copied().find(|user| user.guest.0 == guest);
                    frame.users.retain(|user| user.guest.0 != guest);
                }
                Op::Free => *frame = Frame::default(),
                Op::MoveGuest(_) => {}
                Op::MoveCharge(to) => {
                    for user in frame.users.iter_mut().filter(|user| user.guest.0 == guest) {
                        user.container = ContainerId(*to);
                    }
                    if let Some(owner) =
                        self.zone_owner.get_mut(&zone).filter(|owner| **owner != POOL && whole(run))
                    {
                        *owner = ContainerId(*to);
                    }
                }
            }
        }
        let frames = &self.frames;
        self.zone_owner.retain(|zone, _| {
            (zone * ZONE..((zone + 1) * ZONE).min(FRAMES)).any(|at| frames[at as usize].resident)
        });
    }

    fn resident(&self) -> u64 {
        self.frames.iter().filter(|frame| frame.resident).count() as u64
    }

    fn sum(&self, of: impl Fn(&Frame) -> Vec<(ContainerId, u64)>) -> BTreeMap<ContainerId, u64> {
        let mut sums = BTreeMap::new();
        for (container, units) in self.frames.iter().filter(|frame| frame.resident).flat_map(of) {
            *sums.entry(container).or_default() += units;
        }
        sums
    }

    fn static_charges(&self) -> BTreeMap<ContainerId, u64> {
        self.sum(|frame| {
            vec![(frame.users.first().or(frame.last.as_ref()).unwrap().container, UNITS_PER_FRAME)]
        })
    }

    fn partial_charges(&self) -> BTreeMap<ContainerId, u64> {
        self.sum(|frame| {
            let payers: std::collections::BTreeSet<_> =
                frame.users.iter().map(|user| user.container).collect();
            let mut left = UNITS_PER_FRAME;
            let mut shares = Vec::new();
            for payer in &payers {
                shares.push((*payer, UNITS_PER_FRAME / payers.len() as u64));
                left -= UNITS_PER_FRAME / payers.len() as u64;
            }
            shares.push((POOL, left));
            shares
        })
    }

    fn rss_charges(&self) -> BTreeMap<ContainerId, u64> {
        self.sum(|frame| {
            frame.users.iter().map(|user| (self.user(user.guest.0).container, UNITS_PER_FRAME)).collect()
        })
    }

    fn zone_charges(&self) -> BTreeMap<ContainerId, u64> {
        let mut sums = BTreeMap::new();
        for owner in self.zone_owner.values() {
            *sums.entry(*owner).or_default() += ZONE * UNITS_PER_FRAME;
        }
        sums
    }
}

/// Applies one event to a system.
fn feed(system: &mut dyn Accounting, op: &Op, run: Run, by: User, mapped: bool) {
    match op {
        Op::Touch(kind) => system.touch(run, by, *kind),
        Op::Share => system.share(run, by),
        Op::Unshare => system.unshare(run, by.guest),
        Op::Free => system.free(run, mapped.then_some(by.guest)),
        Op::MoveGuest(_) => {}
        Op::MoveCharge(to) => system.move_charge(run, by.guest, ContainerId(*to)),
    }
}

fn charges(system: &dyn Accounting) -> BTreeMap<ContainerId, u64> {
    CONTAINERS
        .iter()
        .map(|container| (*container, system.charged(*container)))
        .filter(|(_, units)| *units > 0)
        .collect()
}

fn nonzero(charges: BTreeMap<ContainerId, u64>) -> BTreeMap<ContainerId, u64> {
    charges.into_iter().filter(|(_, units)| *units > 0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_system_agrees_with_the_model_and_conserves(ops in prop::collection::vec(op(), 1..60)) {
        let mut model = Model::new();
        let mut zones = Zones::new(ZONE as u32);
        let mut first = static_ownership(None);
        let mut exact = partial(Shares::Exact, None);
        let mut graced = partial(Shares::Exact, Some(GRACE_HALF_LIFE_MS));
        let mut halves = partial(Shares::PowerOfTwo, None);
        let mut rss = Rss::default();
        for (now_ms, (op, start, count, guest)) in ops.into_iter().enumerate() {
            graced.advance(now_ms as u64 * 700);
            if let Op::MoveGuest(to) = op {
                let systems: [&mut dyn Accounting; 6] =
                    [&mut zones, &mut first, &mut exact, &mut graced, &mut halves, &mut rss];
                for system in systems {
                    system.move_guest(GuestId(guest), ContainerId(to));
                }
                model.attached[usize::from(guest)] = ContainerId(to);
            }
            for run in model.legal(&op, start, count, guest) {
                let (by, mapped) = (model.user(guest), model.mapped(run.first));
                let systems: [&mut dyn Accounting; 6] =
                    [&mut zones, &mut first, &mut exact, &mut graced, &mut halves, &mut rss];
                for system in systems {
                    feed(system, &op, run, by, mapped);
                }
                model.apply(&op, run, guest);
            }
            let resident = model.resident() * UNITS_PER_FRAME;
            let sum = |system: &dyn Accounting| charges(system).values().sum::<u64>();

            prop_assert_eq!(charges(&zones), nonzero(model.zone_charges()));
            prop_assert_eq!(sum(&zones), resident + zones.fragmentation());
            prop_assert_eq!(charges(&first), nonzero(model.static_charges()));
            prop_assert_eq!(sum(&first), resident);
            prop_assert_eq!(charges(&exact), nonzero(model.partial_charges()));
            prop_assert_eq!(sum(&exact), resident);
            prop_assert_eq!(charges(&graced), charges(&exact), "a grace changes what counts, not what is charged");
            prop_assert_eq!(sum(&halves), resident);
            prop_assert_eq!(charges(&rss), nonzero(model.rss_charges()));
            let mapped = (0..FRAMES).filter(|at| model.mapped(*at)).count() as u64;
            prop_assert!(sum(&rss) >= mapped * UNITS_PER_FRAME);
        }
    }

    #[test]
    fn powers_of_two_differ_by_one_step_at_most(guests in 1u16..200) {
        let mut halves = partial(Shares::PowerOfTwo, None);
        let run = Run { first: 0, count: 1 };
        for guest in 0..guests {
            let by = User { guest: GuestId(guest), container: ContainerId(guest + 1) };
            if guest == 0 { halves.touch(run, by, Kind::Pool) } else { halves.share(run, by) }
        }
        let parts: Vec<u64> = (0..guests).map(|guest| halves.charged(ContainerId(guest + 1))).collect();
        halves.share(run, User { guest: GuestId(guests), container: ContainerId(guests + 1) });
        let touched = (0..guests).filter(|guest| halves.charged(ContainerId(guest + 1)) != parts[usize::from(*guest)]);
        prop_assert_eq!(touched.count(), 1, "a newcomer changes one other");
        prop_assert_eq!(parts.iter().sum::<u64>(), UNITS_PER_FRAME);
        prop_assert!(parts.iter().all(|part| part.is_power_of_two()));
        prop_assert!(parts.iter().max().unwrap() <= &(2 * parts.iter().min().unwrap()));
    }
}

const RUN: Run = Run { first: 0, count: 512 };
const A: User = User { guest: GuestId(1), container: ContainerId(1) };
const A2: User = User { guest: GuestId(2), container: ContainerId(1) };
const B: User = User { guest: GuestId(3), container: ContainerId(2) };
const C: User = User { guest: GuestId(4), container: ContainerId(3) };
const FULL: u64 = 512 * UNITS_PER_FRAME;

fn of(system: &dyn Accounting) -> [u64; 4] {
    CONTAINERS.map(|container| system.charged(container))
}

#[test]
fn static_hands_over_in_order_of_arrival() {
    let mut system = static_ownership(None);
    system.touch(RUN, A, Kind::Pool);
    system.share(RUN, C);
    system.share(RUN, B);
    assert_eq!(of(&system), [0, FULL, 0, 0]);
    system.unshare(RUN, A.guest);
    assert_eq!(of(&system), [0, 0, 0, FULL]);
    system.unshare(RUN, B.guest);
    system.unshare(RUN, C.guest);
    assert_eq!(of(&system), [0, 0, 0, FULL], "the last one is charged until they are freed");
    system.share(RUN, B);
    assert_eq!(of(&system), [0, 0, FULL, 0], "a present user comes before a former one");
    system.free(RUN, Some(B.guest));
    assert_eq!(of(&system), [0; 4]);
}

#[test]
fn partial_counts_a_container_once_and_gives_the_remainder_to_the_pool() {
    let mut system = partial(Shares::Exact, None);
    system.touch(RUN, A, Kind::Pool);
    system.share(RUN, A2);
    system.share(RUN, B);
    assert_eq!(of(&system), [0, FULL / 2, FULL / 2, 0]);
    system.share(RUN, C);
    let third = 512 * (UNITS_PER_FRAME / 3);
    assert_eq!(of(&system), [FULL - 3 * third, third, third, third]);
    system.unshare(RUN, A.guest);
    assert_eq!(of(&system)[1], third, "its other guest still uses them");
    for guest in [A2.guest, B.guest, C.guest] {
        system.unshare(RUN, guest);
    }
    assert_eq!(of(&system), [FULL, 0, 0, 0], "frames that are not mapped are charged to the pool");
}

#[test]
fn a_timed_unshare_does_not_push_a_container_over_its_limit_at_once() {
    let limit = FULL * 6 / 10;
    let over_at_once = |grace| {
        let mut system = partial(Shares::Exact, grace);
        system.touch(RUN, A, Kind::Pool);
        system.share(RUN, B);
        // The victim is charged half, well below its limit. Then the other leaves, at a time of its choosing.
        let rest_ms = 10 * GRACE_HALF_LIFE_MS.get();
        system.advance(rest_ms);
        assert!(system.enforceable(A.container) <= limit);
        system.unshare(RUN, B.guest);
        assert_eq!(system.charged(A.container), FULL);
        let over_at_once = system.enforceable(A.container) > limit;
        system.advance(2 * rest_ms);
        assert!(system.enforceable(A.container) > limit, "in the end it counts");
        over_at_once
    };
    assert!(over_at_once(None), "before");
    assert!(!over_at_once(Some(GRACE_HALF_LIFE_MS)), "after");
}

#[test]
fn a_grace_is_for_changes_by_others_and_never_for_a_containers_own() {
    for mut system in
        [static_ownership(Some(GRACE_HALF_LIFE_MS)), partial(Shares::Exact, Some(GRACE_HALF_LIFE_MS))]
    {
        let at_once = |system: &Ledger, user: User| {
            assert_eq!(system.enforceable(user.container), system.charged(user.container))
        };
        system.touch(RUN, A, Kind::Pool);
        at_once(&system, A);
        system.share(RUN, B);
        at_once(&system, B);
        // A second guest of the same container changes nothing for it; its own RAM counts at once.
        system.share(RUN, A2);
        system.touch(Run { first: 512, count: 100 }, B, Kind::Private);
        at_once(&system, B);
        system.free(Run { first: 512, count: 100 }, Some(B.guest));
        system.unshare(RUN, B.guest);
        at_once(&system, B);
        // A guest takes its charge along: that is not caused by others.
        system.touch(Run { first: 1024, count: 7 }, C, Kind::Private);
        system.move_charge(Run { first: 1024, count: 7 }, C.guest, B.container);
        at_once(&system, B);
        at_once(&system, C);
    }
}

#[test]
fn zones_are_charged_whole_and_fragment() {
    let mut system = Zones::default();
    system.touch(RUN, A, Kind::Private);
    system.free(Run { first: 1, count: 511 }, Some(A.guest));
    assert_eq!((of(&system), system.fragmentation()), ([0, FULL, 0, 0], 511 * UNITS_PER_FRAME));
    system.touch(Run { first: 1, count: 1 }, B, Kind::Private);
    assert_eq!(of(&system), [0, FULL, 0, 0], "a zone has one owner");
    system.move_charge(Run { first: 0, count: 511 }, A.guest, C.container);
    assert_eq!(of(&system), [0, FULL, 0, 0], "a part of a zone cannot move");
    system.move_charge(RUN, A.guest, C.container);
    assert_eq!(of(&system), [0, 0, 0, FULL]);
}

#[test]
fn a_guest_moves_with_its_charges_or_without() {
    for system in System::ALL {
        let mut accounting = system.build();
        accounting.touch(RUN, A, Kind::Private);
        accounting.move_guest(A.guest, B.container);
        let left = if system == System::Rss { [0, 0, FULL, 0] } else { [0, FULL, 0, 0] };
        assert_eq!(of(&*accounting), left, "{system:?}: left");
        accounting.move_charge(RUN, A.guest, B.container);
        assert_eq!(of(&*accounting), [0, 0, FULL, 0], "{system:?}: moved");
    }
}

#[test]
fn the_pool_is_charged_for_what_is_left_of_a_removed_container() {
    for system in [System::Zones, System::Static, System::Partial] {
        let mut accounting = system.build();
        accounting.touch(RUN, A, Kind::Private);
        accounting.touch(Run { first: 512, count: 512 }, B, Kind::Private);
        accounting.unshare(RUN, A.guest);
        accounting.remove(A.container);
        assert_eq!(of(&*accounting), [FULL, 0, FULL, 0], "{system:?}");
        accounting.free(RUN, None);
        assert_eq!(of(&*accounting), [0, 0, FULL, 0], "{system:?}");
    }
}
