//! The balloon stress test: random limits and loads from a seed.

use crate::engine::Engine;
use crate::host::Host;
use crate::linux::{Images, Linux, LinuxGuest};
use crate::wait;
use anyhow::{Context, Result, ensure};

const MIB: u64 = 1 << 20;
/// Steps of a run: what is done is a function of the seed, on a machine of any speed. About a minute on QEMU without
/// KVM.
const STEPS: u32 = 80;
const GUESTS: usize = 4;

pub fn random_steps(images: &Images) -> Result<()> {
    run(images, images.seed).with_context(|| format!("BALLAST_STRESS_SEED={} repeats this run", images.seed))
}

fn run(images: &Images, seed: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
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
        guests.push((linux, agent, false));
    }
    let began = std::time::Instant::now();
    for step in 0..STEPS {
        let index = random.usize(..GUESTS);
        let (linux, agent, holds) = &mut guests[index];
        match (random.u64(..3), *holds) {
            (0, _) => {
                let max = Engine::current().limit((160 + random.u64(..96)) * MIB);
                host.set_max(&format!("/stress/{index}"), max)?;
            }
            (_, false) => {
                agent.alloc("heap", (8 + random.u64(..32)) * MIB, random.u64(..1 << 32))?;
                *holds = true;
            }
            (_, true) => {
                ensure!(agent.verify("heap")?.intact, "step {step}: guest {index} lost bytes");
                agent.free("heap")?;
                *holds = false;
            }
        }
        host.assert_near_kernel(&linux.guest).with_context(|| format!("step {step}"))?;
    }
    println!("stress: {STEPS} steps with seed {seed} in {:.0} s", began.elapsed().as_secs_f64());
    for (linux, agent, holds) in &mut guests {
        settle(&host, linux)?;
        if *holds {
            ensure!(agent.verify("heap")?.intact, "{} lost bytes", linux.guest.name);
        }
        ensure!(agent.vmstat("oom_kill")? == 0, "a program in {} was killed", linux.guest.name);
    }
    Ok(())
}

/// Actual converges to target.
fn settle(host: &Host, linux: &LinuxGuest) -> Result<()> {
    wait::until(
        "actual converges to target",
        &host,
        || host.guest_object(&linux.guest.name),
        |guest| guest.balloon.actual_bytes.abs_diff(guest.balloon.target_bytes) <= 2 * MIB,
    )?;
    Ok(())
}
