use super::*;
use crate::{ContainerView, GuestView, HostView, Plan, decide};

const MIB: u64 = 1 << 20;

/// A host of 1 GiB with two guests of which the first holds 100 MiB and the second 300 MiB more than they were asked
/// to.
fn host(oom_policy: OomPolicy) -> Observation {
    let mut observation = Observation { now_ms: 100_000, ..Default::default() };
    observation.knobs.oom_policy = oom_policy;
    observation.containers = vec![ContainerView {
        path: "/".parse().unwrap(),
        parent: 0,
        limits: Default::default(),
        charged_bytes: 0,
    }];
    for held in [400, 600] {
        observation.guests.push(GuestView {
            name: format!("g{held}"),
            container: 0,
            ram_bytes: 1024 * MIB,
            floor_bytes: 64 * MIB,
            overhead_bytes: 0,
            usage_bytes: held * MIB,
            actual_bytes: held * MIB,
            refaulted_bytes: 0,
            has_balloon: true,
            driver_ready: true,
            statistics: None,
            out_of_memory: Default::default(),
            ceiling: None,
            memory: Default::default(),
        });
        observation.guests.last_mut().unwrap().memory.target_bytes = Some(300 * MIB);
    }
    observation
}

/// A second passes, with this much available on the host.
fn second(observation: &mut Observation, available_mib: u64) -> Plan {
    observation.now_ms += 1000;
    observation.host = Some(HostView {
        total_bytes: 1024 * MIB,
        available_bytes: available_mib * MIB,
        ..Default::default()
    });
    let plan = decide(observation);
    observation.memory = plan.memory;
    observation.guests.iter_mut().zip(&plan.targets).for_each(|(view, target)| view.memory = target.memory);
    plan
}

#[test]
fn the_guest_with_the_largest_excess_is_paused_until_the_host_has_memory_again() {
    let mut observation = host(OomPolicy::Pause);
    for _ in 0..5 {
        assert!(second(&mut observation, 1).paused.is_empty());
    }
    let plan = second(&mut observation, 1);
    assert_eq!((plan.paused, plan.victim), (vec![1], None), "it starved for five seconds");
    for _ in 0..4 {
        assert_eq!(second(&mut observation, 1).paused, [1], "one at a time");
    }
    assert_eq!(second(&mut observation, 1).paused, [0, 1], "that was not enough");
    assert_eq!(second(&mut observation, 20).paused, [0, 1], "not yet half of the reserve");
    assert!(second(&mut observation, 40).paused.is_empty(), "there is enough");
    assert!(second(&mut observation, 1).paused.is_empty());
}

#[test]
fn no_guest_is_paused_for_more_than_a_minute() {
    let mut observation = host(OomPolicy::Pause);
    observation.guests.remove(0);
    let paused = (0..200).filter(|_| !second(&mut observation, 1).paused.is_empty()).count();
    assert!((120..190).contains(&paused), "{paused} of 200 s");
    let mut still = 0;
    for _ in 0..200 {
        still = if second(&mut observation, 1).paused.is_empty() { 0 } else { still + 1 };
        assert!(still <= 60);
    }
}

#[test]
fn a_paused_guest_does_not_count_as_stuck() {
    let mut observation = host(OomPolicy::Pause);
    for _ in 0..40 {
        second(&mut observation, 1);
    }
    assert!(!observation.guests[1].memory.health.is_excluded());
}

#[test]
fn a_change_of_the_policy_resumes_paused_guests() {
    let mut observation = host(OomPolicy::Pause);
    while second(&mut observation, 1).paused.is_empty() {}
    observation.knobs.oom_policy = OomPolicy::Report;
    assert!(second(&mut observation, 1).paused.is_empty());
    observation.knobs.oom_policy = OomPolicy::Kill;
    assert_eq!(second(&mut observation, 1).victim, Some(1));
}
