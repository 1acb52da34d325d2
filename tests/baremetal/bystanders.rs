//! A guest that only reads pages that are charged to another: what it gains by that under each accounting system, and
//! which container is charged.

use super::managed::{charged, guest, host, press, scan};
use super::{MIB, finish};
use anyhow::{Context, Result, ensure};
use balancer::objects::PoolObject;
use e2e::{Host, wait};

const ACCOUNTING: [&str; 4] = ["static", "partial", "zones", "rss"];
const BACKINGS: [&str; 2] = ["managed", "pagecache"];
const PAYER: &str = "/web/payer";
const BYSTANDER: &str = "/web/bystander";
const COMMON: &str = "/common";

/// What each container is charged for the image, bytes.
#[derive(Debug, Clone, Copy)]
struct Charges {
    payer: u64,
    bystander: u64,
    common: u64,
    /// What the host holds of it, and by how much the others may be off.
    resident: u64,
    error: u64,
}

fn charges(host: &Host, guests: &[&str]) -> Result<(Charges, PoolObject)> {
    let pool = scan(host, guests)?;
    let of = |path: &str| charged(&pool, path);
    let (resident, error) = (pool.resident_bytes, pool.error_bytes);
    Ok((Charges { payer: of(PAYER), bystander: of(BYSTANDER), common: of(COMMON), resident, error }, pool))
}

pub fn gain_nothing_beyond() -> Result<()> {
    for accounting in ACCOUNTING {
        for backing in BACKINGS {
            stand_by(accounting, backing).with_context(|| format!("{accounting}, {backing}"))?;
        }
    }
    Ok(())
}

fn stand_by(accounting: &str, backing: &str) -> Result<()> {
    let Some((host, image)) = host(8, backing, &["--accounting", accounting])? else { return Ok(()) };
    let mut payer = guest(&host, "payer", PAYER, "image-granules", &image)?;
    payer.wait_for("granules=")?;
    press(&mut payer, "a", "sum=", 1)?;
    let (alone, pool) = charges(&host, &["payer"])?;
    let bytes = pool.mapped_bytes;
    let near = |found: u64, truth: u64, error: u64| found.abs_diff(truth) <= error;

    // It reads all that is there, again and again, and makes no page resident.
    let mut bystander = guest(&host, "bystander", BYSTANDER, "image-granules", &image)?;
    bystander.wait_for("granules=")?;
    for round in 1..=3 {
        press(&mut bystander, "a", "sum=", round)?;
    }
    let (both, pool) = charges(&host, &["payer", "bystander"])?;
    println!("{accounting}, {backing}: alone {alone:?}, with a bystander {both:?}");
    let error = alone.error + both.error;
    ensure!(
        near(both.resident, alone.resident, 0),
        "a bystander makes no page resident: {alone:?}, {both:?}"
    );
    ensure!(both.payer <= alone.payer + error, "the payer is charged for the bystander: {alone:?}, {both:?}");
    ensure!(both.common <= alone.common + error, "/common is charged for a bystander: {alone:?}, {both:?}");
    // It is charged what the rule of the system says.
    let fair = match accounting {
        "static" | "zones" => 0,
        "partial" => bytes / 2,
        _ => bytes,
    };
    ensure!(
        near(both.bystander, fair, error),
        "the bystander is charged {}, by the rule {fair}",
        both.bystander
    );
    // What it gains is published: what it would be charged alone, and is not.
    let row = pool.guests.iter().find(|row| row.guest == "bystander").context("the bystander")?;
    let (saved, charged) = (row.saved_bytes, row.charged_bytes);
    ensure!(near(saved + charged, row.alone_bytes, error), "what it gains is published: {row:?}");
    ensure!(saved <= bytes - fair + error, "it gains more than the rule gives it: {row:?}");

    // The gain ends with the payer.
    payer.type_keys("q")?;
    finish(&mut payer)?;
    let after = match accounting {
        "zones" => 0,
        _ => bytes,
    };
    wait::until(
        "the bystander is charged for what it maps",
        &host,
        || charges(&host, &["bystander"]).map(|(charges, _)| charges),
        |left| near(left.bystander, after, left.error) && left.payer == 0,
    )?;
    bystander.type_keys("q")?;
    finish(&mut bystander)
}

/// With a budget that is full, the payer loses no page to a guest that makes none resident, and that guest loses none
/// either.
pub fn take_no_room() -> Result<()> {
    let Some((host, image)) = host(4, "managed", &[])? else { return Ok(()) };
    host.set_max(COMMON, 4 * MIB)?;
    let mut payer = guest(&host, "payer", PAYER, "image-granules", &image)?;
    payer.wait_for("granules=")?;
    press(&mut payer, "a", "sum=", 1)?;
    let (before, _) = charges(&host, &["payer"])?;
    ensure!(before.resident == 4 * MIB, "the budget is full: {before:?}");
    let mut bystander = guest(&host, "bystander", BYSTANDER, "image-granules", &image)?;
    bystander.wait_for("granules=")?;
    for round in 1..=3 {
        press(&mut bystander, "a", "sum=", round)?;
        let (now, pool) = charges(&host, &["payer", "bystander"])?;
        ensure!(now.resident == before.resident && now.payer == before.payer, "{before:?}, {now:?}");
        ensure!(pool.saved_bytes == 4 * MIB, "both have all of it: {pool:?}");
    }
    for guest in [&mut payer, &mut bystander] {
        guest.type_keys("q")?;
        finish(guest)?;
    }
    Ok(())
}
