//! Memory of guests: balloon, free page reporting, limits.

use super::{MIB, expect_code, finish, start, totals};
use anyhow::{Result, ensure};
use e2e::{Guest, Host, wait};
use serde_json::json;
use std::fs;

pub fn inflates() -> Result<()> {
    let host = Host::new()?;
    let mut guest = start(&host, "a", "balloon", &["--container", "/web/a"])?;
    guest.wait_for("ballooned=1024")?;
    let frames = totals(&host, "a")?;
    ensure!(frames.ballooned == 1024, "{frames:?}");
    guest.type_keys("k")?;
    finish(&mut guest)
}

pub fn reports() -> Result<()> {
    let host = Host::new()?;
    let mut guest = start(&host, "a", "report", &[])?;
    guest.wait_for("reported=512")?;
    let frames = totals(&host, "a")?;
    ensure!(frames.reported == 512, "{frames:?}");
    guest.type_keys("k")?;
    finish(&mut guest)
}

/// Resident memory of guest RAM: the kernel's count of anonymous memory, less what `vmm` itself takes.
fn settled(guest: &Guest, what: &str, holds: impl Fn(u64) -> bool) -> Result<u64> {
    wait::until(what, guest, || guest.resident_bytes(), |bytes| holds(*bytes))
}

pub fn limit_moves_memory() -> Result<()> {
    let host = Host::new()?;
    let mut guest = start(&host, "a", "serve 80", &["--container", "/web/a", "--container-limit", "160M"])?;
    guest.wait_for("touched=20480")?;
    let before = settled(&guest, "80 MiB are held", |bytes| bytes >= 80 * MIB)?;
    host.set_max("/web/a", 70 * MIB)?;
    host.assert_near_kernel(&guest)?;
    wait::until(
        "the guest releases memory",
        &host,
        || host.frames("a"),
        |frames| frames.totals.private * 4096 <= 70 * MIB,
    )?;
    // Both figures are read when nothing moves any more.
    wait::until(
        "the guest holds its target",
        &host,
        || host.guest_object("a"),
        |guest| guest.actual_bytes == guest.target_bytes,
    )?;
    let after = guest.resident_bytes()?;
    let ballooned = totals(&host, "a")?.ballooned * 4096;
    ensure!(
        before - after >= ballooned * 9 / 10,
        "resident memory fell by {} of {ballooned} bytes",
        before - after
    );
    // More than its RAM and its vmm need: the balloon deflates completely.
    host.set_max("/web/a", 256 * MIB)?;
    settled(&guest, "the memory comes back", |bytes| bytes >= after + ballooned * 9 / 10)?;
    guest.type_keys("q")?;
    guest.wait_for("verified=20480")?;
    finish(&mut guest)
}

pub fn parent_limit() -> Result<()> {
    let host = Host::new()?;
    let answer = host.request("PUT", "/v1/containers/web", Some(&json!({ "max_bytes": 160 * MIB })))?;
    ensure!(answer.status < 300, "{answer:?}");
    let mut guests = Vec::new();
    for name in ["a", "b"] {
        let mut guest = start(&host, name, "serve 80", &["--container", &format!("/web/{name}")])?;
        guest.wait_for("touched")?;
        guests.push(guest);
    }
    wait::until(
        "both fit into the parent's limit",
        &host,
        || {
            host.frames("a")?;
            Ok(guests.iter().map(|guest| guest.resident_bytes().unwrap_or(u64::MAX)).sum::<u64>())
        },
        |sum| *sum <= 160 * MIB,
    )?;
    for guest in &mut guests {
        guest.type_keys("q")?;
        finish(guest)?;
    }
    Ok(())
}

pub fn object_limits() -> Result<()> {
    let host = Host::new()?;
    let limit = |limit| ["--cpus", "2", "--container", "/web/a", "--container-limit", limit];
    for refused in ["256M,max-vcpus=1", "max-guests=0", "max-devices=1", "max-fds=3", "max-threads=4"] {
        let mut guest = start(&host, "a", "serve 1", &limit(refused))?;
        expect_code(&mut guest, 5)?;
    }
    let mut guest =
        start(&host, "a", "serve 1", &limit("256M,max-vcpus=2,max-guests=1,max-devices=2,max-threads=6"))?;
    guest.wait_for("touched")?;
    let web = host.container("/web")?;
    let used = web.objects;
    ensure!((used.vcpus.used, used.guests.used, used.devices.used) == (2, 1, 2), "{web:#?}");
    // What it reported at its launch is what it has, but for what is open for a moment only.
    let count =
        |what: &str| Ok::<_, std::io::Error>(fs::read_dir(format!("/proc/{}/{what}", guest.pid()))?.count());
    for (kind, used, counted, spare) in [
        ("fds", used.fds.used, count("fd")? as u64, 4),
        ("threads", used.threads.used, count("task")? as u64, 1),
    ] {
        ensure!((counted..=counted + spare).contains(&used), "{kind}: reported {used}, counted {counted}");
    }
    guest.type_keys("q")?;
    Ok(())
}
