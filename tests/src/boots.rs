//! Counts boots: how reliable is the lab?

use crate::evidence;
use crate::host::Host;
use crate::linux::{Images, Linux};
use anyhow::{Result, ensure};
use std::time::Instant;

/// What to count.
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// Kernel series of the guests
    #[arg(long)]
    pub guest: String,
    /// Boots; every second one with four CPUs
    #[arg(long)]
    pub count: u32,
}

/// Boots guests to user space and powers them off, one after the other. Returns how many failed; prints a line each.
///
/// # Errors
/// Never for a guest that does not come up: that is counted.
pub fn run(images: &Images, plan: &Plan) -> Result<u32> {
    let mut failed = 0;
    let mut times = Vec::new();
    for number in 1..=plan.count {
        let cpus = if number % 2 == 0 { "4" } else { "1" };
        let started = Instant::now();
        match evidence::with(|| boot(images, &plan.guest, cpus)) {
            Ok(seconds) => {
                times.push(seconds);
                println!("boot {number}: ok, {cpus} cpus, user space after {seconds:.1} s");
            }
            Err(error) => {
                failed += 1;
                println!(
                    "boot {number}: FAILED, {cpus} cpus, after {:.1} s",
                    started.elapsed().as_secs_f64()
                );
                error.lines().for_each(|line| println!("    {line}"));
            }
        }
    }
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let good = plan.count - failed;
    println!(
        "{good} of {} boots of Linux {} reached user space, median {median:.1} s",
        plan.count, plan.guest
    );
    Ok(failed)
}

/// Seconds from exec to user space.
fn boot(images: &Images, series: &str, cpus: &str) -> Result<f64> {
    let host = Host::without_balancer()?;
    let flags = ["--balancer", "none"];
    let started = Instant::now();
    let mut linux = Linux { series: Some(series), memory: "256M", cpus, flags: &flags, ..Linux::default() }
        .start(&host, images, "guest")?;
    let seconds = started.elapsed().as_secs_f64();
    linux.agent()?.power_off()?;
    let status = linux.guest.wait_end()?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(seconds)
}
