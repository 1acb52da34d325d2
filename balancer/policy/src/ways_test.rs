//! What `explain` says would help does help.

use super::*;
use crate::decide::tests::any_observation;
use crate::{Health, decide};
use proptest::prelude::*;
use simulator::{Ballast, Governor, generate};
use std::collections::BTreeMap;

const GIB: u64 = 1 << 30;

/// Makes the change. False if it is none that somebody could make by the figures of an observation.
fn go(observation: &mut Observation, plan: &Plan, guest: usize, way: Way) -> bool {
    let view = &mut observation.guests[guest];
    match way {
        Way::RoomElsewhere => view.ceiling = None,
        Way::Fits => view.out_of_memory = Default::default(),
        Way::Wider(Bound::Container { index, .. }) => {
            let limits = &mut observation.containers[index].limits;
            (limits.max_bytes, limits.high_bytes) = (None, None);
        }
        Way::Wider(Bound::Host { .. }) => {
            let host = observation.host.as_mut().unwrap();
            (host.total_bytes, host.available_bytes) =
                (host.total_bytes + 64 * GIB, host.available_bytes + 64 * GIB);
        }
        Way::Weight => {
            let mut at = view.container;
            while at != 0 {
                observation.containers[at].limits.weight = 10_000;
                at = observation.containers[at].parent;
            }
        }
        Way::UsesMore => {
            let Some(statistics) = &mut view.statistics else { return false };
            (statistics.used_bytes, statistics.available_bytes) = (view.ram_bytes, 0);
            statistics.sequence += 1;
        }
        Way::OtherGives(other, _) => {
            let target = plan.targets[other].target_bytes;
            let other = &mut observation.guests[other];
            (other.actual_bytes, other.usage_bytes) = (target, other.usage_bytes.min(target));
        }
        Way::Statistics => {
            let Some(statistics) = &mut view.statistics else { return false };
            (statistics.age_ms, statistics.used_bytes) = (0, view.ram_bytes);
            (statistics.available_bytes, statistics.sequence) = (0, statistics.sequence + 1);
        }
        Way::Gives => view.memory.health = Health::Slow,
        Way::OthersNeedLess => {
            for (i, other) in observation.guests.iter_mut().enumerate().filter(|(i, _)| *i != guest) {
                other.floor_bytes = 0;
                other.memory.used_bytes = Some(0);
                (other.actual_bytes, other.usage_bytes) = (0, 0);
                other.memory.target_bytes = Some(plan.targets[i].floor_bytes);
                let Some(statistics) = &mut other.statistics else { continue };
                (statistics.used_bytes, statistics.cache_bytes) = (0, 0);
            }
        }
        Way::MoreRam | Way::Wider(Bound::None) => return false,
    }
    true
}

/// By way and rule: how often it was tried, gave more, gave less.
type Counts = BTreeMap<String, [u32; 3]>;

fn count_ways(observation: &Observation, counts: &mut Counts) {
    let plan = decide(observation);
    for guest in 0..observation.guests.len() {
        for way in ways(observation, &plan, guest) {
            let mut next = observation.clone();
            if !go(&mut next, &plan, guest, way) {
                continue;
            }
            let moving = matches!(plan.targets[guest].reason, Reason::OnItsWay(..));
            let [now, then] = [&plan, &decide(&next)].map(|plan| {
                let target = &plan.targets[guest];
                if moving { target.target_bytes } else { target.share_bytes.max(target.target_bytes) }
            });
            let name = format!("{way:?} {}", plan.targets[guest].reason.rule());
            let name = name.replace(|c: char| c.is_ascii_digit(), "");
            let count = counts.entry(name).or_default();
            count[0] += 1;
            count[1] += u32::from(then > now);
            count[2] += u32::from(then < now);
        }
    }
}

#[test]
fn on_simulated_hosts_each_way_gives_no_less_and_most_give_more() {
    let mut counts = Counts::new();
    for seed in 0..6 {
        let mut world = generate(seed, 60, 600_000, 1000);
        let (mut governor, mut targets) = (Ballast::default(), vec![]);
        for turn in 0..300 {
            world.pass(&targets);
            governor.turn(&mut world.observation, &mut targets);
            if turn % 20 == 19 {
                // The simulator is built with this crate as a library, whose types are not those of this test.
                let observation = serde_json::to_value(&world.observation).unwrap();
                count_ways(&serde_json::from_value(observation).unwrap(), &mut counts);
            }
            governor.remember(&mut world.observation);
        }
    }
    // What is wider, heavier or more used never gives less. It may be that something else binds then, right behind what bound before.
    let help = ["Wider", "Weight", "UsesMore"];
    for (way, [count, more, less]) in &counts {
        assert!(
            *less == 0 || !help.iter().any(|name| way.starts_with(name)),
            "{way}: {less} of {count} less"
        );
        let mostly = ["Wider(Host", "Weight need", "Wider(Container { index: , bytes: }) need", "UsesMore"];
        let is_one = mostly.iter().any(|name| way.starts_with(name));
        assert!(!is_one || more * 10 >= count * 9, "{way}: {more} of {count} more");
    }
    assert!(counts.len() > 12, "{counts:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn each_way_gives_no_less_and_all_of_them_lead_to_all_of_its_ram(observation in any_observation(), which in 0usize..8) {
        prop_assume!(!observation.guests.is_empty());
        let guest = which % observation.guests.len();
        let mut observation = observation;
        for _ in 0..16 {
            let plan = decide(&observation);
            let target = plan.targets[guest].target_bytes;
            let ways = ways(&observation, &plan, guest);
            for way in &ways {
                let mut next = observation.clone();
                if go(&mut next, &plan, guest, *way) && *way != Way::Fits {
                    let got = decide(&next).targets[guest].target_bytes;
                    prop_assert!(got >= target, "{:?}: {} and then {}", way, target, got);
                }
            }
            let Some(way) = ways.first().copied() else { break };
            if way == Way::MoreRam {
                prop_assert_eq!(target, observation.guests[guest].ram_bytes);
                return Ok(());
            }
            prop_assert!(go(&mut observation, &plan, guest, way), "{:?} leads nowhere", way);
        }
        prop_assert!(false, "it never got all of its RAM");
    }

    #[test]
    fn every_way_is_a_sentence(observation in any_observation()) {
        let plan = decide(&observation);
        for guest in 0..observation.guests.len() {
            for way in ways(&observation, &plan, guest) {
                prop_assert!(way.text(&observation, &plan, guest).len() > 10);
            }
        }
    }
}
