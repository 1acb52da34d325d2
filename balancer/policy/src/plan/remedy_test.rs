//! The remedies that `explain` names do help.

use super::*;
use crate::decide::tests::any_observation;
use crate::{Health, decide};
use proptest::prelude::*;
use simulator::{Ballast, Governor, generate};
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;

/// Applies a remedy. False if the figures of an observation cannot express it.
fn apply(observation: &mut Observation, plan: &Plan, guest: usize, remedy: Remedy) -> bool {
    let view = &mut observation.guests[guest];
    match remedy {
        Remedy::RoomElsewhere => view.ceiling = None,
        Remedy::Fits => view.out_of_memory = Default::default(),
        Remedy::Wider(Bound::Container { index, .. }) => {
            let limits = &mut observation.containers[index].limits;
            (limits.max_bytes, limits.high_bytes) = (None, None);
        }
        Remedy::Wider(Bound::Host { .. }) => {
            let host = observation.host.as_mut().unwrap();
            (host.total_bytes, host.available_bytes) =
                (host.total_bytes + 64 * GIB, host.available_bytes + 64 * GIB);
        }
        Remedy::Weight => {
            let mut at = view.container;
            while at != 0 {
                observation.containers[at].limits.weight = 10_000;
                at = observation.containers[at].parent;
            }
        }
        Remedy::UsesMore => {
            let Some(statistics) = &mut view.statistics else { return false };
            (statistics.used_bytes, statistics.available_bytes) = (view.ram_bytes, 0);
            statistics.sequence += 1;
        }
        Remedy::OtherReleases(other, _) => {
            let target = plan.targets[other].target_bytes;
            let other = &mut observation.guests[other];
            (other.actual_bytes, other.usage_bytes) = (target, other.usage_bytes.min(target));
        }
        Remedy::Statistics => {
            let Some(statistics) = &mut view.statistics else { return false };
            (statistics.age_ms, statistics.used_bytes) = (0, view.ram_bytes);
            (statistics.available_bytes, statistics.sequence) = (0, statistics.sequence + 1);
        }
        Remedy::Releases => view.memory.health = Health::Slow,
        Remedy::OthersNeedLess => {
            for (i, other) in observation.guests.iter_mut().enumerate().filter(|(i, _)| *i != guest) {
                other.floor_bytes = 0;
                other.memory.used_bytes = Some(0);
                (other.actual_bytes, other.usage_bytes) = (0, 0);
                other.memory.target_bytes = Some(plan.targets[i].floor_bytes);
                let Some(statistics) = &mut other.statistics else { continue };
                (statistics.used_bytes, statistics.cache_bytes) = (0, 0);
            }
        }
        Remedy::MoreRam | Remedy::Wider(Bound::None) => return false,
    }
    true
}

/// By remedy and rule: how often it was tried, gave more, gave less.
type Counts = BTreeMap<String, [u32; 3]>;

fn count_remedies(observation: &Observation, counts: &mut Counts) {
    let plan = decide(observation);
    for guest in 0..observation.guests.len() {
        for remedy in remedies(observation, &plan, guest) {
            let mut next = observation.clone();
            if !apply(&mut next, &plan, guest, remedy) {
                continue;
            }
            let moving = matches!(plan.targets[guest].reason, Reason::OnItsWay(..));
            let [now, then] = [&plan, &decide(&next)].map(|plan| {
                let target = &plan.targets[guest];
                if moving { target.target_bytes } else { target.share_bytes.max(target.target_bytes) }
            });
            let name = format!("{remedy:?} {}", plan.targets[guest].reason.rule());
            let name = name.replace(|c: char| c.is_ascii_digit(), "");
            let count = counts.entry(name).or_default();
            count[0] += 1;
            count[1] += u32::from(then > now);
            count[2] += u32::from(then < now);
        }
    }
}

#[test]
fn on_simulated_hosts_no_remedy_gives_less_and_most_give_more() {
    let mut counts = Counts::new();
    for seed in 0..6 {
        let mut world = generate(seed, 60, 600_000, 1000);
        let (mut governor, mut targets) = (Ballast::default(), vec![]);
        for tick in 0..300 {
            world.pass(&targets);
            governor.tick(&mut world.observation, &mut targets);
            if tick % 20 == 19 {
                // The simulator is built with this crate as a library, whose types are not those of this test.
                let observation = serde_json::to_value(&world.observation).unwrap();
                count_remedies(&serde_json::from_value(observation).unwrap(), &mut counts);
            }
            governor.remember(&mut world.observation);
        }
    }
    // A wider bound, a larger weight or more use never gives less. It may give the same: something else may bind
    // then.
    let help = ["Wider", "Weight", "UsesMore"];
    for (remedy, [count, more, less]) in &counts {
        assert!(
            *less == 0 || !help.iter().any(|name| remedy.starts_with(name)),
            "{remedy}: {less} of {count} less"
        );
        let mostly = ["Wider(Host", "Weight need", "Wider(Container { index: , bytes: }) need", "UsesMore"];
        let is_one = mostly.iter().any(|name| remedy.starts_with(name));
        assert!(!is_one || more * 10 >= count * 9, "{remedy}: {more} of {count} more");
    }
    assert!(counts.len() > 12, "{counts:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_remedy_gives_less_and_together_they_lead_to_all_of_its_ram(
        observation in any_observation(),
        which in 0usize..8,
    ) {
        prop_assume!(!observation.guests.is_empty());
        let guest = which % observation.guests.len();
        let mut observation = observation;
        for _ in 0..16 {
            let plan = decide(&observation);
            let target = plan.targets[guest].target_bytes;
            let remedies = remedies(&observation, &plan, guest);
            for remedy in &remedies {
                let mut next = observation.clone();
                if apply(&mut next, &plan, guest, *remedy) && *remedy != Remedy::Fits {
                    let got = decide(&next).targets[guest].target_bytes;
                    prop_assert!(got >= target, "{:?}: {} and then {}", remedy, target, got);
                }
            }
            let Some(remedy) = remedies.first().copied() else { break };
            if remedy == Remedy::MoreRam {
                prop_assert_eq!(target, observation.guests[guest].ram_bytes);
                return Ok(());
            }
            prop_assert!(apply(&mut observation, &plan, guest, remedy), "{:?} leads nowhere", remedy);
        }
        prop_assert!(false, "it never got all of its RAM");
    }

    #[test]
    fn every_remedy_has_a_text(observation in any_observation()) {
        let plan = decide(&observation);
        for guest in 0..observation.guests.len() {
            for remedy in remedies(&observation, &plan, guest) {
                prop_assert!(remedy.text(&observation, &plan, guest).len() > 10);
            }
        }
    }
}
