//! What a decision costs: `cargo bench -p balancer --bench policy`. Medians; growth as a factor per container.

use balancer::policy::{Observation, decide};
use balancer::simulator::{Ballast, Governor, generate};
use std::hint::black_box;
use std::time::{Duration, Instant};

const REPEATS: usize = 101;

/// A host of the simulator in its second minute, with so many guests, each in a container of its own.
fn observation(guests: usize) -> Observation {
    let mut world = generate(1, guests, 3_600_000, 1000);
    let (mut governor, mut targets) = (Ballast::default(), vec![]);
    for _ in 0..90 {
        world.pass(&targets);
        governor.turn(&mut world.observation, &mut targets);
        governor.remember(&mut world.observation);
    }
    world.pass(&targets);
    world.observation
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
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
