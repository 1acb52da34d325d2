//! Invariants of images that are about charges and processes (ARCHITECTURE.md): what becomes of a guest's pages when it
//! goes, what is kept of an image, and which containers are charged when all sharing is broken at once.

use super::managed::{charged, guest, host, press, scan, sum};
use super::{ELF, MIB, expect_code, finish, totals};
use anyhow::{Context, Result, ensure};
use balancer::objects::PoolObject;
use e2e::{Guest, wait};
use rustix::process::Signal;
use std::fs;

/// Guests that map anything by the API, in their order.
fn sharers(pool: &PoolObject) -> Result<Vec<&str>> {
    let image = pool.images.first().context("the image")?;
    Ok(image.sharers.iter().map(|row| row.guest.as_str()).collect())
}

/// I5: the pages of a guest that leaves are unmapped first, then no longer charged to it, then charged to the guests
/// that are left, in the order in which they came; they stay resident.
pub fn leaves() -> Result<()> {
    for backing in ["managed", "pagecache"] {
        let Some((host, image)) = host(8, backing, &[])? else { return Ok(()) };
        let content = sum(&host, &image)?.0;
        let mut guests = Vec::new();
        for name in ["a", "b", "c"] {
            let mut guest = guest(&host, name, &format!("/web/{name}"), "image-granules", &image)?;
            guest.wait_for("granules=")?;
            press(&mut guest, "a", &format!("sum={content}"), 1)?;
            guests.push(guest);
        }
        let pool = scan(&host, &["a", "b", "c"])?;
        ensure!(sharers(&pool)? == ["a", "b", "c"], "{pool:?}");
        let (resident, mapped) = (pool.resident_bytes, pool.mapped_bytes);
        ensure!(charged(&pool, "/web/a") + pool.error_bytes >= mapped, "the first one pays: {pool:?}");

        // By a signal that it never hears of, and by its own end.
        for (index, (left, next)) in
            [(vec!["b", "c"], "/web/b"), (vec!["c"], "/web/c")].into_iter().enumerate()
        {
            let gone = &mut guests[index];
            if index == 0 {
                gone.signal(Signal::KILL)?;
                gone.wait_end()?;
            } else {
                gone.type_keys("q")?;
                finish(gone)?;
            }
            let container = format!("/web/{}", gone.name);
            let pool = wait::until(
                "its pages are charged to another",
                &host,
                || scan(&host, &left),
                |pool| sharers(pool).is_ok_and(|names| names == left),
            )?;
            ensure!(charged(&pool, &container) == 0, "{container} pays when its guest is gone: {pool:?}");
            ensure!(charged(&pool, next) + pool.error_bytes >= mapped, "{next} pays now: {pool:?}");
            ensure!(pool.resident_bytes == resident, "{backing}: pages went with a guest: {pool:?}");
        }
        press(&mut guests[2], "a", &format!("sum={content}"), 2)?;
        guests[2].type_keys("q")?;
        finish(&mut guests[2])?;
        let pool = wait::until(
            "no guest maps it",
            &host,
            || scan(&host, &[]),
            |pool| sharers(pool).is_ok_and(|names| names.is_empty()),
        )?;
        ensure!(pool.mapped_bytes == 0 && charged(&pool, "/common") == pool.resident_bytes, "{pool:?}");
    }
    Ok(())
}

/// I7: there are no snapshots; what outlives a process is what a guest reports to the next balancer, and a core dump.
pub fn kept() -> Result<()> {
    for backing in ["managed", "pagecache"] {
        let Some((mut host, image)) = host(4, backing, &[])? else { return Ok(()) };
        let content = sum(&host, &image)?.0;
        let mut guest = guest(&host, "a", "/web/a", "image-granules", &image)?;
        guest.wait_for("granules=")?;
        press(&mut guest, "a", &format!("sum={content}"), 1)?;
        ensure!(undumped(&guest)? == 1, "{backing}: an image is in a core dump");

        // A balancer without this image does not readmit a guest that maps it.
        let store = host.path("store");
        let aside = host.path("aside");
        host.kill_balancer();
        fs::rename(&store, &aside)?;
        host.start_balancer_with(&["--pool", backing])?;
        // It asks, and is refused; twice, so that the first refusal was complete.
        let refusals = || Ok(guest.errors().matches("does not admit the guest again").count());
        wait::until("it is refused", &guest, refusals, |count| *count >= 2)?;
        ensure!(host.request("GET", "/v1/guests/a", None)?.status == 404, "taken back without its image");
        host.kill_balancer();
        fs::remove_dir_all(&store)?;
        fs::rename(&aside, &store)?;
        host.start_balancer_with(&["--pool", backing])?;
        let known = || Ok(host.request("GET", "/v1/guests/a", None)?.status);
        wait::until("its image is there again, and so is the guest", &host, known, |status| *status == 200)?;
        press(&mut guest, "a", &format!("sum={content}"), 2)?;
        guest.type_keys("q")?;
        finish(&mut guest)?;
    }
    Ok(())
}

/// Mappings of images of a guest's process that no core dump has. Fails if one is in it.
fn undumped(guest: &Guest) -> Result<usize> {
    let text = fs::read_to_string(format!("/proc/{}/smaps", guest.pid()))?;
    let (mut inside, mut count) = (false, 0);
    for line in text.lines() {
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            inside = line.contains("memfd:ballast-pool") || line.ends_with(".erofs");
        } else if inside && first == "VmFlags:" {
            ensure!(line.split_ascii_whitespace().any(|flag| flag == "dd"), "{line}");
            count += 1;
        }
    }
    Ok(count)
}

/// I9: what sharing saves is promised to no container: guests that break all of it are held by their limits, and only
/// they are charged.
pub fn broken() -> Result<()> {
    /// Room under the limit when all is shared: for half of one copy.
    const ROOM: u64 = 16 * MIB;
    let Some((host, image)) = host(32, "pagecache", &[])? else { return Ok(()) };
    let mut other = guest(&host, "other", "/other", "image-granules", &image)?;
    other.wait_for("granules=")?;
    press(&mut other, "a", "sum=", 1)?;
    let mut guests = Vec::new();
    for name in ["a", "b"] {
        let mut guest = guest(&host, name, &format!("/web/{name}"), "image-copy 48", &image)?;
        guest.wait_for("touched=")?;
        guest.wait_for("read=")?;
        guests.push(guest);
    }
    let usage = |path: &str| Ok::<u64, anyhow::Error>(host.container(path)?.usage_bytes);
    scan(&host, &["a", "b", "other"])?;
    let (shared, others) = (usage("/web")?, usage("/other")?);
    let limit = shared + ROOM;
    host.set_max("/web", limit)?;
    // Admission depends on what guests need to live, not on what is free because of sharing.
    let large = ["--kernel", ELF, "--memory", "8G", "--cmdline", "serve 1", "--container", "/web/c"];
    let mut third = host.guest("c", &large)?;
    expect_code(&mut third, 5)?;
    for guest in &mut guests {
        guest.type_keys("c")?;
    }
    for guest in &mut guests {
        guest.wait_for("copied=")?;
    }
    let after = wait::until(
        "the copies fit under the limit",
        &host,
        || {
            scan(&host, &["a", "b", "other"])?;
            usage("/web")
        },
        |bytes| *bytes <= limit,
    )?;
    println!(
        "/web {shared} bytes, with two copies of 32 MiB {after}, /other {others} and {}",
        usage("/other")?
    );
    for name in ["a", "b"] {
        let ballooned = totals(&host, name)?.ballooned;
        ensure!(ballooned > 0, "{name} gave nothing for its copy");
    }
    ensure!(usage("/other")?.abs_diff(others) <= MIB, "another one pays: {others}, {}", usage("/other")?);
    for guest in &mut guests {
        guest.type_keys("q")?;
        guest.wait_for("same=")?;
        finish(guest)?;
    }
    press(&mut other, "a", "sum=", 2)?;
    other.type_keys("q")?;
    finish(&mut other)
}
