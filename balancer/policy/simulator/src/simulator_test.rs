//! Some seeds under the policy, and the simulator's own promises: same seed same run, checks that find something,
//! recordings that can be replayed.

use super::*;
use policy::{Rule, Rules, needed_bytes};

const HOUR_MS: u64 = 3_600_000;

#[test]
fn some_hosts_for_an_hour() {
    // A thousand hosts: `tests/hosts.rs`.
    for seed in 0..20 {
        let outcome = simulate(&Settings { seed, guests: 100, length_ms: HOUR_MS, interval_ms: 5000 });
        assert_eq!(outcome.violations, 0, "{outcome:#?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run_to_the_byte() {
    let settings = Settings { seed: 7, guests: 60, length_ms: 900_000, interval_ms: 1000 };
    let text = |settings| serde_json::to_string(&simulate(settings)).unwrap();
    assert_eq!(text(&settings), text(&settings));
    assert_ne!(text(&settings), text(&Settings { seed: 8, ..settings }));
}

#[test]
fn the_checks_find_a_policy_without_a_rule() {
    // The checks pass because of these rules: without one of them, some host fails.
    for rule in [Rule::NoPressureNoReclaim, Rule::Hysteresis] {
        let found = (0..20).any(|seed| {
            let mut world = generate(seed, 100, HOUR_MS, 5000);
            super::run::run(&mut world, HOUR_MS, Rules::without(rule)).1.count > 0
        });
        assert!(found, "{rule:?}");
    }
}

#[test]
fn a_recording_is_played_by_the_same_policy() {
    let mut world = generate(3, 20, HOUR_MS, 1000);
    let (mut governor, mut targets, mut text) = (Ballast::default(), vec![], String::new());
    for _ in 0..50 {
        world.pass(&targets);
        text += &(serde_json::to_string(&world.observation).unwrap() + "\n");
        governor.tick(&mut world.observation, &mut targets);
        governor.remember(&mut world.observation);
    }
    let replay = replay(&text).unwrap();
    assert_eq!((replay.ticks, replay.violations), (50, 0));
    for (i, view) in world.observation.guests.iter().enumerate() {
        let last = replay.changes.iter().rev().find(|change| change.guest == view.name).unwrap();
        assert_eq!(last.target_bytes, targets[i].bytes, "{}", view.name);
    }
    assert!(matches!(super::replay("{}\nlots"), Err(ReplayError::Line { line: 2, .. })));
    assert!(matches!(super::replay("\n"), Err(ReplayError::Empty)));
    // A recording may hold anything.
    let most = u64::MAX;
    let wild = serde_json::json!({
        "containers": [{"path": "/", "parent": 9, "limits": {}}],
        "guests": [{
            "name": "a", "container": 77, "ram_bytes": most, "floor_bytes": most, "overhead_bytes": most,
            "usage_bytes": most, "actual_bytes": most, "driver_ready": true, "statistics": null,
            "out_of_memory": "no", "ceiling": null,
        }],
    });
    assert_eq!(super::replay(&wild.to_string()).unwrap().ticks, 1);
    assert_eq!(needed_bytes(u64::MAX), u64::MAX);
}
