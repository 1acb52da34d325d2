//! The balloon stress test: random limits and loads from a seed.

use super::random::Random;
use crate::engine::Engine;
use crate::host::Host;
use crate::linux::{Images, Linux, LinuxGuest, SOON};
use crate::wait;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const MINUTE: Duration = Duration::from_secs(60);
const GUESTS: usize = 4;

pub fn random_minute(images: &Images) -> Result<()> {
    run(images, images.seed).with_context(|| format!("BALLAST_STRESS_SEED={} repeats this run", images.seed))
}

fn run(images: &Images, seed: u64) -> Result<()> {
    let mut random = Random(seed);
    let host = Host::new()?;
    let mut guests = Vec::new();
    for index in 0..GUESTS {
        let container = format!("/stress/{index}");
        let limit = Engine::current().limit_mib(256);
        let flags = ["--container", &container, "--container-limit", &limit];
        let name = format!("s{index}");
        let linux =
            Linux { memory: "256M", flags: &flags, ..Linux::default() }.start(&host, images, &name)?;
        let agent = linux.agent()?;
        guests.push((linux, agent, None::<u64>));
    }
    let end = Instant::now() + MINUTE;
    let mut steps = 0;
    while Instant::now() < end {
        let index = usize::try_from(random.below(GUESTS as u64))?;
        let (linux, agent, held) = &mut guests[index];
        match (random.below(3), &held) {
            (0, _) => {
                let max = Engine::current().limit((160 + random.below(96)) * MIB);
                host.set_max(&format!("/stress/{index}"), max)?;
            }
            (_, None) => {
                agent.alloc("heap", (8 + random.below(32)) * MIB, random.below(1 << 32))?;
                *held = Some(0);
            }
            (_, Some(_)) => {
                ensure!(agent.verify("heap")?.intact, "step {steps}: guest {index} lost bytes");
                agent.free("heap")?;
                *held = None;
            }
        }
        host.assert_near_kernel(&linux.guest).with_context(|| format!("step {steps}"))?;
        steps += 1;
    }
    println!("stress: {steps} steps with seed {seed}");
    for (linux, agent, held) in &mut guests {
        settle(&host, linux)?;
        if held.is_some() {
            ensure!(agent.verify("heap")?.intact, "{} lost bytes", linux.guest.name);
        }
        ensure!(agent.vmstat("oom_kill")? == 0, "a program in {} was killed", linux.guest.name);
    }
    Ok(())
}

/// Actual converges to target.
fn settle(host: &Host, linux: &LinuxGuest) -> Result<()> {
    let path = format!("/v1/guests/{}", linux.guest.name);
    wait::until(
        "actual converges to target",
        SOON,
        || host.get(&path),
        |guest| {
            let number = |key: &str| guest["balloon"][key].as_u64().unwrap_or(0);
            number("actual_bytes").abs_diff(number("target_bytes")) <= 2 * MIB
        },
    )?;
    Ok(())
}
