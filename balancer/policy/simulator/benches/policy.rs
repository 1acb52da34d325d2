//! What a decision costs, and how fast memory moves: `cargo bench -p simulator --bench policy`. Medians.
//!
//! Decisions take real time. Memory moves on a simulated host whose balloons inflate at 2 GiB/s: its time is
//! simulated, and the real time that the decisions took is printed next to it.

use policy::{Observation, decide};
use simulator::{Ballast, Governor, Kind, Phase, SimGuest, Target, World, generate};
use std::hint::black_box;
use std::time::{Duration, Instant};

const REPEATS: usize = 101;
const MIB: u64 = 1 << 20;
/// Guests of the host on which memory is moved.
const GUESTS: usize = 100;
/// The clock of that host, and how often released memory goes to other guests between two ticks
/// (`state/tick/grant.rs`), milliseconds.
const STEP_MS: u64 = 10;
const GRANT_EVERY_MS: u64 = 100;

/// A host of the simulator in its second minute, with this many guests, each in a container of its own.
fn observation(guests: usize) -> Observation {
    let mut world = generate(1, guests, 3_600_000, 1000);
    let (mut governor, mut targets) = (Ballast::default(), vec![]);
    for _ in 0..90 {
        tick(&mut world, &mut governor, &mut targets);
    }
    world.pass(&targets);
    world.observation
}

fn tick(world: &mut World, governor: &mut Ballast, targets: &mut Vec<Target>) {
    world.pass(targets);
    governor.tick(&mut world.observation, targets);
    governor.remember(&mut world.observation);
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn decisions() {
    println!("one decide, median of {REPEATS}");
    for containers in [10, 100, 1000, 4000] {
        let observation = observation(containers);
        let times = (0..REPEATS)
            .map(|_| {
                let start = Instant::now();
                black_box(decide(black_box(&observation)));
                start.elapsed()
            })
            .collect();
        let time = median(times);
        let each = time.as_nanos() / observation.containers.len() as u128;
        println!(
            "{:>6} containers: {:>9.1} us, {each} ns each",
            observation.containers.len(),
            time.as_nanos() as f64 / 1000.0
        );
    }
}

/// A host with idle guests that hold all of its memory, and one that needs 1 GiB more from a time on. Its clock
/// advances by `STEP_MS`.
fn host(demand_at_ms: u64) -> World {
    let mut world = World::new((GUESTS as u64 * 512 + 4096) * MIB);
    world.observation.knobs.interval_ms = STEP_MS;
    let phase = |at_ms, used| Phase { at_ms, used_bytes: used * MIB, files_bytes: 0 };
    for _ in 0..GUESTS {
        world.guest(0, World::plain(), SimGuest::new(Kind::Ideal, 1024 * MIB, vec![phase(0, 200)]));
    }
    let mut needy = SimGuest::new(Kind::Ideal, 4096 * MIB, vec![phase(0, 400), phase(demand_at_ms, 1900)]);
    needy.deflates = false;
    world.guest(0, World::plain(), needy);
    world
}

/// Time from a step of demand in the middle between two ticks until others have released the first byte, and until
/// the needy guest has 1 GiB more. As in the daemon, released memory goes to other guests between two ticks.
fn moves(interval_ms: u64) {
    let demand_at_ms = 60_000 + interval_ms / 2 / STEP_MS * STEP_MS;
    let mut world = host(demand_at_ms);
    let (mut governor, mut targets) = (Ballast::default(), vec![]);
    let held = |world: &World| world.guests[..GUESTS].iter().map(|guest| guest.actual_bytes).sum::<u64>();
    let (mut idle, mut needy, mut before, mut granted_at_ms) = (0, 0, 0, 0);
    let (mut first, mut moved, mut cost) = (None, None, Duration::ZERO);
    while moved.is_none() && world.observation.now_ms < 2 * demand_at_ms {
        world.pass(&targets);
        let now_ms = world.observation.now_ms;
        let holds = held(&world);
        if now_ms < demand_at_ms {
            (idle, needy) = (holds, world.guests[GUESTS].actual_bytes);
        } else {
            let since = now_ms - demand_at_ms;
            first = first.or((holds < idle).then_some(since));
            moved = (world.guests[GUESTS].actual_bytes >= needy + 1024 * MIB).then_some(since);
        }
        let start = Instant::now();
        if now_ms.is_multiple_of(interval_ms) {
            governor.tick(&mut world.observation, &mut targets);
            governor.remember(&mut world.observation);
        } else if governor.plan.any_waits() && holds < before && now_ms >= granted_at_ms + GRANT_EVERY_MS {
            governor.grant(&mut world.observation, &mut targets);
            granted_at_ms = now_ms;
        }
        if now_ms >= demand_at_ms {
            cost += start.elapsed();
        }
        before = holds;
    }
    let time = |ms: Option<u64>| ms.map_or("never".to_owned(), |ms| format!("{ms} ms"));
    println!(
        "ticks of {interval_ms:>4} ms: first byte released after {}, 1 GiB moved after {}; decisions took {} us",
        time(first),
        time(moved),
        cost.as_micros()
    );
}

fn main() {
    decisions();
    println!("from a step of demand on a simulated host of {} guests", GUESTS + 1);
    for interval_ms in [50, 100, 250, 1000] {
        moves(interval_ms);
    }
}
