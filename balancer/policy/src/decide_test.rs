use super::*;
use crate::guest::needs::Needs;
use crate::share::fill::{Share, fill};
use crate::{
    Ceiling, ContainerView, Explanation, GuestStatistics, GuestView, Health, HostView, OutOfMemory, explain,
};
use proptest::prelude::*;
use protocol::limits::Limits;

const MIB: u64 = 1 << 20;

/// A container by its path; its index comes later.
fn container(path: &str, limits: &str) -> ContainerView {
    let patch: protocol::limits::LimitsPatch = limits.parse().unwrap();
    let limits = Limits::default().patched(&patch);
    ContainerView { path: path.parse().unwrap(), parent: 0, limits, charged_bytes: 0 }
}

/// A guest and the container it is in.
type Placed = (GuestView, ContainerPath);

fn guest(name: &str, container: &str, ram_mib: u64) -> Placed {
    let view = GuestView {
        name: name.into(),
        container: 0,
        ram_bytes: ram_mib * MIB,
        floor_bytes: 32 * MIB,
        overhead_bytes: 0,
        usage_bytes: 0,
        actual_bytes: ram_mib * MIB,
        refaulted_bytes: 0,
        has_balloon: true,
        driver_ready: false,
        statistics: None,
        out_of_memory: OutOfMemory::No,
        ceiling: None,
        memory: Default::default(),
    };
    (view, container.parse().unwrap())
}

fn uses(guest: &mut Placed, mib: u64) {
    let available_bytes = guest.0.ram_bytes.saturating_sub(mib * MIB);
    let used_bytes = mib * MIB;
    guest.0.statistics =
        Some(GuestStatistics { used_bytes, available_bytes, sequence: 1, ..Default::default() });
}

fn below(container: &str, mib: u64) -> Ceiling {
    Ceiling { container: container.parse().unwrap(), max_bytes: 64 * MIB, bytes: mib * MIB }
}

/// An observation with all indexes set.
fn observe(mut containers: Vec<ContainerView>, guests: Vec<Placed>) -> Observation {
    if !containers.iter().any(|view| view.path.is_root()) {
        containers.insert(0, container("/", "weight=100"));
    }
    containers.sort_by(|a, b| a.path.cmp(&b.path));
    let paths: Vec<ContainerPath> = containers.iter().map(|view| view.path.clone()).collect();
    let place = |path: &ContainerPath| paths.iter().position(|known| known == path);
    for view in &mut containers {
        view.parent = view.path.parent().and_then(|parent| place(&parent)).unwrap_or(0);
    }
    let guests = guests
        .into_iter()
        .map(|(view, path)| GuestView { container: place(&path).unwrap_or(0), ..view })
        .collect();
    Observation { containers, guests, ..Default::default() }
}

fn targets_mib(containers: Vec<ContainerView>, guests: Vec<Placed>) -> Vec<u64> {
    decide(&observe(containers, guests)).targets.iter().map(|target| target.target_bytes / MIB).collect()
}

#[test]
fn without_a_limit_every_guest_may_hold_its_ram() {
    let guests = vec![guest("a", "/web", 512), guest("b", "/", 1024)];
    assert_eq!(targets_mib(vec![container("/web", "low=64M")], guests), [512, 1024]);
}

#[test]
fn a_limit_covers_the_vmm_too() {
    let mut a = guest("a", "/web/a", 512);
    a.0.overhead_bytes = 10 * MIB;
    let observation = observe(vec![container("/web", "1G"), container("/web/a", "256M")], vec![a]);
    let plan = decide(&observation);
    let reason = plan.targets[0].reason.text(&observation, 0);
    assert_eq!(plan.targets[0].target_bytes, 246 * MIB);
    for word in ["/web/a", "256M", "10M"] {
        assert!(reason.contains(word), "{reason}");
    }
}

#[test]
fn what_a_container_is_charged_in_addition_to_its_guests_comes_first_and_within_its_own_limit() {
    let tree = |max: &str| {
        let mut paying = container("/web", "512M");
        paying.charged_bytes = 200 * MIB;
        vec![container("/", max), paying, container("/db", "512M")]
    };
    let guests = || vec![guest("a", "/web", 512), guest("b", "/db", 512)];
    assert_eq!(targets_mib(tree("4G"), guests()), [312, 512]);
    // Under a limit that contains both it takes a share, as a guest does.
    assert_eq!(targets_mib(tree("800M"), guests()).iter().sum::<u64>(), 600);
    let mut all = tree("4G");
    all[1].charged_bytes = 4096 * MIB;
    assert_eq!(targets_mib(all, guests()), [32, 512], "never below the floor");
}

#[test]
fn what_a_container_is_charged_in_addition_is_not_subtracted_from_the_hosts_budget_a_second_time() {
    let mut paying = container("/web", "weight=100");
    paying.charged_bytes = 200 * MIB;
    let guests = vec![guest("a", "/web", 1024), guest("b", "/db", 1024)];
    let mut observation = observe(vec![paying, container("/db", "weight=100")], guests);
    observation.knobs.reserve_bytes = Some(0);
    let available_bytes = 1024 * MIB;
    observation.host =
        Some(HostView { total_bytes: 4096 * MIB, available_bytes, age_ms: 0, stalled_age_ms: None });
    let targets: u64 = decide(&observation).targets.iter().map(|target| target.target_bytes).sum();
    assert_eq!(targets, 1024 * MIB);
}

#[test]
fn a_new_charge_of_a_container_is_reclaimed_from_its_guests_at_once() {
    let mut observation = observe(vec![container("/web", "512M")], vec![guest("a", "/web", 512)]);
    observation.guests[0].memory.target_bytes = Some(512 * MIB);
    observation.containers[1].charged_bytes = 200 * MIB;
    assert_eq!(decide(&observation).targets[0].target_bytes, 312 * MIB);
}

#[test]
fn a_guest_that_charges_others_stays_below_its_ceiling_and_above_its_floor() {
    let tree = || vec![container("/a", "512M"), container("/x", "64M")];
    let mut a = guest("a", "/a", 512);
    a.0.ceiling = Some(below("/x", 200));
    let observation = observe(tree(), vec![a.clone(), guest("b", "/a", 512)]);
    let plan = decide(&observation);
    let reason = plan.targets[0].reason.text(&observation, 0);
    assert_eq!(plan.targets[0].target_bytes, 200 * MIB);
    assert!(reason.contains("/x") && reason.contains("64M"), "{reason}");
    assert_eq!(plan.targets[1].target_bytes, 312 * MIB, "what it cannot use goes to the other guest");
    a.0.ceiling = Some(below("/x", 1));
    assert_eq!(targets_mib(tree(), vec![a.clone()]), [32]);
    a.0.ceiling = Some(below("/x", 4096));
    assert_eq!(targets_mib(tree(), vec![a]), [512]);
}

#[test]
fn the_smallest_limit_on_the_way_to_the_root_binds() {
    let tree = || vec![container("/", "400M"), container("/web", "high=300M"), container("/web/a", "1G")];
    assert_eq!(targets_mib(tree(), vec![guest("a", "/web/a", 512)]), [300]);
    assert_eq!(targets_mib(tree(), vec![guest("a", "/other", 512)]), [400]);
}

#[test]
fn guests_without_statistics_share_evenly() {
    let guests = vec![guest("a", "/web", 512), guest("b", "/web", 512)];
    assert_eq!(targets_mib(vec![container("/web", "512M")], guests), [256, 256]);
}

#[test]
fn weights_divide_contended_memory() {
    let tree =
        vec![container("/web", "600M"), container("/web/a", "weight=200"), container("/web/b", "weight=100")];
    let guests = vec![guest("a", "/web/a", 1024), guest("b", "/web/b", 1024)];
    assert_eq!(targets_mib(tree, guests), [400, 200]);
}

#[test]
fn an_idle_guest_gives_to_the_one_in_need() {
    let mut idle = guest("idle", "/web", 512);
    uses(&mut idle, 40);
    let mut busy = guest("busy", "/web", 512);
    uses(&mut busy, 400);
    let targets = targets_mib(vec![container("/web", "610M")], vec![idle.clone(), busy.clone()]);
    assert_eq!(targets, [110, 500]);
    // What is left over after both have what they need is still given out.
    assert_eq!(targets_mib(vec![container("/web", "700M")], vec![idle, busy]), [200, 500]);
}

#[test]
fn protection_comes_before_demand() {
    let tree =
        vec![container("/web", "512M"), container("/web/a", "min=384M"), container("/web/b", "weight=10000")];
    let guests = vec![guest("a", "/web/a", 512), guest("b", "/web/b", 512)];
    assert_eq!(targets_mib(tree, guests), [384, 128]);
}

#[test]
fn floors_that_exceed_the_limit_are_kept_and_reported() {
    let guests = vec![guest("a", "/web", 512), guest("b", "/web", 512)];
    let plan = decide(&observe(vec![container("/web", "40M")], guests));
    assert!(plan.targets.iter().all(|target| target.target_bytes == 32 * MIB));
    assert_eq!((plan.shortfalls[0].budget_bytes, plan.shortfalls[0].needed_bytes), (40 * MIB, 64 * MIB));
}

#[test]
fn a_guest_that_ran_out_of_memory_keeps_what_it_holds_and_goes_back_later() {
    let mut a = guest("a", "/web", 512);
    let tree = || vec![container("/web", "256M")];
    a.0.out_of_memory = OutOfMemory::Holding { actual_bytes: 300 * MIB };
    assert_eq!(targets_mib(tree(), vec![a.clone()]), [300]);
    a.0.out_of_memory = OutOfMemory::Returning { actual_bytes: 300 * MIB };
    assert_eq!(targets_mib(tree(), vec![a.clone()]), [300], "no statistics: it keeps what it holds");
    uses(&mut a, 210);
    assert_eq!(targets_mib(tree(), vec![a.clone()]), [274], "used and headroom");
    uses(&mut a, 100);
    assert_eq!(targets_mib(tree(), vec![a]), [256], "back at its share");
}

#[test]
fn a_guest_that_runs_out_of_memory_takes_only_from_guests_under_the_same_limit() {
    let tree = vec![container("/", "1G"), container("/greedy", "256M"), container("/other", "weight=100")];
    let mut greedy = guest("greedy", "/greedy", 2048);
    greedy.0.out_of_memory = OutOfMemory::Holding { actual_bytes: 2000 * MIB };
    assert_eq!(targets_mib(tree, vec![greedy, guest("other", "/other", 2048)])[1], 768);
}

fn any_guest() -> impl Strategy<Value = Placed> {
    let container = prop::sample::select(vec!["/", "/a", "/a/x", "/a/y", "/b"]);
    let state = (0u8..6, 0u64..3000).prop_map(|(kind, mib)| match kind {
        0 => OutOfMemory::Holding { actual_bytes: mib * MIB },
        1 => OutOfMemory::Returning { actual_bytes: mib * MIB },
        _ => OutOfMemory::No,
    });
    let bytes = || prop::option::of(0u64..2048);
    (container, 1u64..2048, 0u64..128, 0u64..32, bytes(), state, bytes()).prop_map(
        |(path, ram, floor, overhead, used, out_of_memory, ceiling)| {
            let mut guest = guest("", path, ram);
            if let Some(used) = used {
                uses(&mut guest, used);
            }
            guest.0.floor_bytes = floor * MIB;
            guest.0.overhead_bytes = overhead * MIB;
            guest.0.out_of_memory = out_of_memory;
            guest.0.ceiling = ceiling.map(|mib| below("/x", mib));
            guest
        },
    )
}

#[test]
fn a_guest_that_does_not_serve_its_balloon_is_marked_after_a_minute_and_treated_as_before() {
    let mut observation = observe(vec![container("/a", "max=200M")], vec![guest("a", "/a", 512)]);
    let mut after = |ms: u64, change: fn(&mut GuestView)| {
        observation.now_ms = ms;
        change(&mut observation.guests[0]);
        let target = decide(&observation).targets[0];
        observation.guests[0].memory = target.memory;
        (target.memory.health, target.target_bytes / MIB)
    };
    assert_eq!(after(0, |_| ()), (Health::Well, 200));
    assert_eq!(after(59_999, |_| ()), (Health::Well, 200), "it may boot");
    assert_eq!(after(60_000, |_| ()), (Health::Unserved, 200));
    assert_eq!(
        after(61_000, |view| view.driver_ready = true).0,
        Health::Well,
        "although it released nothing yet"
    );
    assert_eq!(after(62_000, |view| view.driver_ready = false).0, Health::Well, "its minute starts again");
    assert_eq!(after(63_000, |view| view.has_balloon = false), (Health::WithoutBalloon, 200));
    // To hold more than it may is an excess, as for any guest.
    let holds = |view: &mut GuestView| view.usage_bytes = 300 * MIB;
    assert_eq!(after(64_000, holds).0, Health::WithoutBalloon);
    assert_eq!(after(74_000, |_| ()).0, Health::Stuck);
}

#[test]
fn the_reason_of_a_guest_alone_under_a_limit_does_not_name_others() {
    let mut placed = guest("a", "/a", 512);
    uses(&mut placed, 100);
    (placed.0.driver_ready, placed.0.memory.target_bytes) = (true, Some(512 * MIB));
    let mut other = guest("b", "/a", 512);
    uses(&mut other, 100);
    let explained = |guests: Vec<Placed>| {
        let observation = observe(vec![container("/a", "max=400M")], guests);
        let Explanation { rule, reason, to_get_more, .. } = explain(&observation, &decide(&observation), 0);
        (rule, reason, to_get_more)
    };
    let (rule, reason, more) = explained(vec![placed.clone()]);
    assert!(rule == "limit" && reason.contains("no other guest shares it"), "{rule} {reason}");
    assert!(more.len() == 1 && more[0].contains("max or high of /a"), "{more:?}");
    let (rule, reason, _) = explained(vec![placed, other]);
    assert!(rule == "idle_tax" && reason.contains("others need more"), "{rule} {reason}");
}

fn ceiling_bytes(view: &GuestView) -> u64 {
    Needs::of(view, 0, Rules::default()).0.ceiling
}

fn any_limits() -> impl Strategy<Value = Limits> {
    let bound = || prop::option::of((1u64..4096).prop_map(|mib| mib * MIB));
    (0u64..512, 0u64..512, bound(), bound(), 1u32..=10_000).prop_map(
        |(min, low, high_bytes, max_bytes, weight)| Limits {
            min_bytes: min * MIB,
            low_bytes: low * MIB,
            high_bytes,
            max_bytes,
            weight,
            ..Default::default()
        },
    )
}

pub(crate) fn any_observation() -> impl Strategy<Value = Observation> {
    let paths = ["/", "/a", "/a/x", "/a/y", "/b"];
    (prop::collection::vec(any_limits(), paths.len()), prop::collection::vec(any_guest(), 0..8)).prop_map(
        move |(limits, mut guests)| {
            guests.iter_mut().enumerate().for_each(|(i, guest)| guest.0.name = format!("g{i}"));
            let containers = paths
                .iter()
                .zip(limits)
                .map(|(path, limits)| ContainerView {
                    path: path.parse().unwrap(),
                    parent: 0,
                    limits,
                    charged_bytes: 0,
                })
                .collect();
            observe(containers, guests)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_target_lies_between_floor_and_ram(observation in any_observation()) {
        let plan = decide(&observation);
        prop_assert_eq!(plan.targets.len(), observation.guests.len());
        for (i, (target, guest)) in plan.targets.iter().zip(&observation.guests).enumerate() {
            prop_assert!(target.target_bytes <= ceiling_bytes(guest) && ceiling_bytes(guest) <= guest.ram_bytes);
            prop_assert!(target.target_bytes >= guest.floor_bytes.min(guest.ram_bytes));
            prop_assert!(!target.reason.text(&observation, i).is_empty());
        }
    }

    #[test]
    fn targets_and_overhead_fit_every_limit_or_a_shortfall_says_so(observation in any_observation()) {
        let plan = decide(&observation);
        for container in &observation.containers {
            let Some(ceiling) = container.limits.ceiling_bytes() else { continue };
            let inside = |path: &ContainerPath| path.is_inside(&container.path);
            let charged: u64 = plan.targets.iter().zip(&observation.guests)
                .filter(|(_, guest)| inside(&observation.containers[guest.container].path))
                .map(|(target, guest)| target.target_bytes + guest.overhead_bytes).sum();
            let reported = plan.shortfalls.iter().any(|shortfall| inside(&shortfall.container));
            prop_assert!(charged <= ceiling || reported, "{} in {}: {charged} > {ceiling}", charged, container.path);
        }
    }

    #[test]
    fn no_guest_is_squeezed_without_a_limit(mut observation in any_observation()) {
        for container in &mut observation.containers {
            (container.limits.high_bytes, container.limits.max_bytes) = (None, None);
        }
        for (target, guest) in decide(&observation).targets.iter().zip(&observation.guests) {
            // A container that the guest charges is a limit as well.
            prop_assert_eq!(target.target_bytes, ceiling_bytes(guest));
        }
        observation.guests.iter_mut().for_each(|guest| guest.ceiling = None);
        for (target, guest) in decide(&observation).targets.iter().zip(&observation.guests) {
            prop_assert_eq!(target.target_bytes, guest.ram_bytes);
        }
    }

    #[test]
    fn filling_is_exact_fair_and_bounded(
        shares in prop::collection::vec((0u64..1000, 0u64..1000, 1u32..=10_000), 1..12),
        budget in 0u64..10_000,
    ) {
        let share = |(have, more, weight)| {
            Share { have: have * MIB, cap: (have + more) * MIB, knee: u64::MAX, weight }
        };
        let shares: Vec<Share> = shares.into_iter().map(share).collect();
        let budget = budget * MIB;
        let mut given = vec![];
        fill(&shares, budget, 75, &mut given);
        let before: u64 = shares.iter().map(|share| share.have).sum();
        let caps: u64 = shares.iter().map(|share| share.cap).sum();
        let sum: u64 = given.iter().sum();
        prop_assert!(sum <= budget.max(before));
        // Only rounding leaves bytes unused.
        prop_assert!(before > budget || sum + shares.len() as u64 >= budget.min(caps));
        for (a, got_a) in shares.iter().zip(&given) {
            prop_assert!(*got_a >= a.have && *got_a <= a.cap);
            for (b, got_b) in shares.iter().zip(&given) {
                // A member below its cap has, per weight, no less than any member that was given something.
                if *got_a < a.cap && *got_b > b.have {
                    let [a_weight, b_weight] = [a, b].map(|share| u128::from(share.weight));
                    let (left, right) = (u128::from(*got_a + 2) * b_weight, u128::from(*got_b) * a_weight);
                    prop_assert!(left >= right, "{a:?} {got_a} {b:?} {got_b}");
                }
            }
        }
    }

    #[test]
    fn the_same_observation_gives_the_same_plan(observation in any_observation()) {
        prop_assert_eq!(decide(&observation), decide(&observation));
    }
}
