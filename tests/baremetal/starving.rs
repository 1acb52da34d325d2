//! What `oom_policy` and `--wait` do to real guests.

use super::{MIB, SOON, finish, start};
use anyhow::{Context, Result, ensure};
use e2e::{Guest, Host, wait};
use serde_json::{Value, json};
use std::thread::sleep;
use std::time::Duration;

/// Turns that a guest said it made.
fn turns(guest: &Guest) -> usize {
    guest.console().matches("turn=").count()
}

fn moves(guest: &Guest) -> Result<()> {
    let before = turns(guest);
    wait::until("the guest runs", SOON, || Ok(turns(guest)), |now| *now > before).map(drop)
}

fn policy(host: &Host, body: &Value) -> Result<()> {
    let answer = host.request("PATCH", "/v1/policy", Some(body))?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

fn has_event(host: &Host, kind: &str) -> Result<bool> {
    let events = host.get("/v1/events?follow=false")?;
    Ok(events.as_array().context("events")?.iter().any(|event| event["kind"] == kind))
}

/// The host has less than a fourth of a reserve as large as can be.
pub fn stands_still() -> Result<()> {
    let mut host = Host::without_balancer()?;
    host.start_balancer_with(&["--interval-ms", "100", "--oom-policy", "pause"])?;
    let mut guest = start(&host, "a", "keep 80", &[])?;
    let mut other = start(&host, "b", "keep 0", &[])?;
    guest.wait_for("touched", SOON)?;
    policy(&host, &json!({ "reserve_bytes": 64u64 << 40 }))?;
    let state = |state: &'static str| {
        wait::until(
            "the guest's state",
            SOON,
            || Ok(host.get("/v1/guests/a")?["state"].clone()),
            |seen| seen == state,
        )
    };
    state("paused")?;
    ensure!(has_event(&host, "host_starves")? && has_event(&host, "paused")?);
    // A turn may be on its way to the console.
    sleep(Duration::from_millis(300));
    let before = turns(&guest);
    moves(&other)?;
    sleep(Duration::from_secs(1));
    ensure!(turns(&guest) == before, "it made {} turns while it stood still", turns(&guest) - before);
    ensure!(host.get("/v1/guests/b")?["state"] == "running", "who holds no more than it was asked to runs");
    policy(&host, &json!({ "reserve_bytes": null }))?;
    state("running")?;
    moves(&guest)?;
    ensure!(has_event(&host, "resumed")?);
    policy(&host, &json!({ "reserve_bytes": 64u64 << 40 }))?;
    state("paused")?;
    // Without a balancer nobody would ever let it go on.
    host.kill_balancer();
    moves(&guest)?;
    for guest in [&mut guest, &mut other] {
        guest.type_keys("q")?;
        finish(guest)?;
    }
    Ok(())
}

/// A guest that stands still ends by a signal like any other.
pub fn ends_while_it_stands_still() -> Result<()> {
    let mut host = Host::without_balancer()?;
    host.start_balancer_with(&["--interval-ms", "100", "--oom-policy", "pause"])?;
    let mut guest = start(&host, "a", "keep 80", &["--cpus", "2"])?;
    guest.wait_for("touched", SOON)?;
    policy(&host, &json!({ "reserve_bytes": 64u64 << 40 }))?;
    wait::until("it stands still", SOON, || host.get("/v1/guests/a"), |guest| guest["state"] == "paused")?;
    guest.signal(libc::SIGTERM);
    let status = guest.wait_end(Duration::from_secs(3))?;
    ensure!(status.code() == Some(143), "{status}");
    Ok(())
}

/// Room for one guest: its floor is 24 MiB and a part of its RAM of 128M.
pub fn waits() -> Result<()> {
    let host = Host::new()?;
    let answer = host.request("PUT", "/v1/containers/web", Some(&json!({ "max_bytes": 40 * MIB })))?;
    ensure!(answer.status == 201, "{answer:?}");
    let flags = |name: &'static str| ["--container", name, "--wait"];
    let mut first = start(&host, "first", "keep 1", &flags("/web/1"))?;
    first.wait_for("touched", SOON)?;
    let mut refused = start(&host, "refused", "keep 1", &["--container", "/web/2"])?;
    ensure!(refused.wait_end(SOON)?.code() == Some(5), "{}", refused.errors());
    let complaint = refused.errors();
    ensure!(complaint.contains("first") && complaint.contains("are missing"), "{complaint}");
    let mut late = start(&host, "late", "keep 1", &["--container", "/web/2", "--wait=1"])?;
    ensure!(late.wait_end(SOON)?.code() == Some(5), "{}", late.errors());
    ensure!(late.errors().contains("It waited in vain"), "{}", late.errors());
    let mut interrupted = start(&host, "interrupted", "keep 1", &flags("/web/2"))?;
    let waiting = |count: usize| {
        wait::until(
            "so many guests wait",
            SOON,
            || Ok(host.get("/v1/host")?["waiting"].as_array().map_or(0, Vec::len)),
            |seen| *seen == count,
        )
    };
    waiting(1)?;
    let shown = String::from_utf8(host.balancer(&["ps"])?.stdout)?;
    ensure!(shown.contains("interrupted waits for /web/2"), "{shown}");
    interrupted.signal(libc::SIGINT);
    ensure!(interrupted.wait_end(SOON)?.code() == Some(130), "{}", interrupted.errors());
    waiting(0)?;
    let mut second = start(&host, "second", "keep 1", &flags("/web/2"))?;
    waiting(1)?;
    ensure!(turns(&second) == 0 && second.console().is_empty(), "it runs: {}", second.console());
    first.type_keys("q")?;
    finish(&mut first)?;
    second.wait_for("touched", SOON)?;
    ensure!(has_event(&host, "waiting")? && has_event(&host, "admitted")?);
    second.type_keys("q")?;
    finish(&mut second)
}
