//! Guests on one root: read-only images that all of them map, and a layer of its own above for each.

mod managed;
mod readers;
mod services;
mod upper;

pub use managed::filled_by_the_balancer;
pub use readers::one_image_for_all;
pub use services::services_under_limits;
pub use upper::on_its_own_disk;

use crate::host::Host;
use crate::wait;
use anyhow::{Context, Result, ensure};
use guest_images::Agent;
use serde_json::Value;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Layers of a root with services, lowest first.
const SERVICES: [&str; 3] = ["base", "services", "database"];
/// How long the guest lets a command run, by its own clock. The wait for its end follows progress.
const COMMAND_MAX: Duration = wait::TOTAL_MAX;

/// Runs a command in the guest's root, which must succeed; returns what it printed.
fn run(agent: &mut Agent, command: &str) -> Result<String> {
    let ran = agent.run(command, COMMAND_MAX)?;
    ensure!(ran.code == 0, "{command}: exit code {}: {}", ran.code, ran.output);
    Ok(ran.output.trim().to_owned())
}

fn number(of: &Value, key: &str) -> Result<u64> {
    of[key].as_u64().with_context(|| format!("{key} in {of}"))
}

/// The pool as it is now: what is charged is what is there, no more and no less.
fn pool(host: &Host) -> Result<Value> {
    let pool = host.get("/v1/pool?max_age_ms=0")?;
    let (resident, charged) = (number(&pool, "resident_bytes")?, number(&pool, "charged_bytes")?);
    ensure!(charged == resident, "{charged} bytes are charged of {resident} that are there");
    ensure!(number(&pool, "uncharged_frames")? == 0, "{pool}");
    let rows = pool["containers"].as_array().context("containers")?;
    let sum = rows.iter().map(|row| number(row, "charged_bytes")).sum::<Result<u64>>()?;
    ensure!(sum == resident, "containers pay {sum} bytes of {resident} that are there");
    Ok(pool)
}

/// One image of the pool.
fn image<'a>(pool: &'a Value, digest: &str) -> Result<&'a Value> {
    let images = pool["images"].as_array().context("images")?;
    images.iter().find(|image| image["digest"] == digest).with_context(|| format!("{digest} in {pool}"))
}

/// An image is what its digest says.
fn unchanged(host: &Host, images: &crate::linux::Images, digest: &str) -> Result<()> {
    let store = images.library.display().to_string();
    let checked = host.balancer(&["image", "check", digest, "--store", &store])?;
    ensure!(checked.status.success(), "{checked:?}");
    Ok(())
}
