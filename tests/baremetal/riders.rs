//! A guest that only reads what others brought and pay for: what that gains it, by accounting system, and who pays for it.

use super::managed::{guest, host, look, press};
use super::{MIB, finish, number};
use anyhow::{Context, Result, ensure};
use e2e::{Host, wait};
use serde_json::Value;

const ACCOUNTING: [&str; 4] = ["static", "partial", "zones", "rss"];
const BACKINGS: [&str; 2] = ["managed", "pagecache"];
const PAYER: &str = "/web/payer";
const RIDER: &str = "/web/rider";
const COMMON: &str = "/common";

/// Who pays what for the image, bytes.
#[derive(Debug, Clone, Copy)]
struct Charges {
    payer: u64,
    rider: u64,
    common: u64,
    /// What the host holds of it, and by how much the others may be off.
    resident: u64,
    error: u64,
}

fn charges(host: &Host, guests: &[&str]) -> Result<(Charges, Value)> {
    let pool = look(host, guests)?;
    let rows = pool["containers"].as_array().context("containers")?;
    let of = |path: &str| {
        let row = rows.iter().find(|row| row["container"] == path);
        row.map_or(Ok(0), |row| number(&row["charged_bytes"]))
    };
    let (resident, error) = (number(&pool["resident_bytes"])?, number(&pool["error_bytes"])?);
    Ok((Charges { payer: of(PAYER)?, rider: of(RIDER)?, common: of(COMMON)?, resident, error }, pool))
}

pub fn gain_nothing_beyond() -> Result<()> {
    for accounting in ACCOUNTING {
        for backing in BACKINGS {
            ride(accounting, backing).with_context(|| format!("{accounting}, {backing}"))?;
        }
    }
    Ok(())
}

fn ride(accounting: &str, backing: &str) -> Result<()> {
    let Some((host, image)) = host(8, backing, &["--accounting", accounting])? else { return Ok(()) };
    let mut payer = guest(&host, "payer", PAYER, "image-granules", &image)?;
    payer.wait_for("granules=")?;
    press(&mut payer, "a", "sum=", 1)?;
    let (alone, pool) = charges(&host, &["payer"])?;
    let bytes = number(&pool["mapped_bytes"])?;
    let near = |found: u64, truth: u64, error: u64| found.abs_diff(truth) <= error;

    // It reads all that is there, again and again, and brings nothing.
    let mut rider = guest(&host, "rider", RIDER, "image-granules", &image)?;
    rider.wait_for("granules=")?;
    for round in 1..=3 {
        press(&mut rider, "a", "sum=", round)?;
    }
    let (both, pool) = charges(&host, &["payer", "rider"])?;
    println!("{accounting}, {backing}: alone {alone:?}, with a rider {both:?}");
    let error = alone.error + both.error;
    ensure!(near(both.resident, alone.resident, 0), "a rider brings nothing: {alone:?}, {both:?}");
    ensure!(both.payer <= alone.payer + error, "the payer pays for its rider: {alone:?}, {both:?}");
    ensure!(both.common <= alone.common + error, "/common pays for a rider: {alone:?}, {both:?}");
    // What it has by the rule of the system, no less.
    let fair = match accounting {
        "static" | "zones" => 0,
        "partial" => bytes / 2,
        _ => bytes,
    };
    ensure!(near(both.rider, fair, error), "the rider pays {}, by the rule {fair}", both.rider);
    // All that it gains is told: what it would pay alone, and does not.
    let guests = pool["guests"].as_array().context("guests")?;
    let row = guests.iter().find(|row| row["guest"] == "rider").context("the rider")?;
    let (saved, charged) = (number(&row["saved_bytes"])?, number(&row["charged_bytes"])?);
    ensure!(near(saved + charged, number(&row["alone_bytes"])?, error), "what it gains is told: {row}");
    ensure!(saved <= bytes - fair + error, "it gains more than the rule gives it: {row}");

    // The ride ends with who pays.
    payer.type_keys("q")?;
    finish(&mut payer)?;
    let after = match accounting {
        "zones" => 0,
        _ => bytes,
    };
    wait::until(
        "the rider pays for what it has",
        &host,
        || charges(&host, &["rider"]).map(|(charges, _)| charges),
        |left| near(left.rider, after, left.error) && left.payer == 0,
    )?;
    rider.type_keys("q")?;
    finish(&mut rider)
}

/// A rider's pages are the first to go for nobody: with a budget that is full, who pays loses no page to a guest that brings
/// nothing, and the rider none either.
pub fn take_no_room() -> Result<()> {
    let Some((host, image)) = host(4, "managed", &[])? else { return Ok(()) };
    host.set_max(COMMON, 4 * MIB)?;
    let mut payer = guest(&host, "payer", PAYER, "image-granules", &image)?;
    payer.wait_for("granules=")?;
    press(&mut payer, "a", "sum=", 1)?;
    let (before, _) = charges(&host, &["payer"])?;
    ensure!(before.resident == 4 * MIB, "the budget is full: {before:?}");
    let mut rider = guest(&host, "rider", RIDER, "image-granules", &image)?;
    rider.wait_for("granules=")?;
    for round in 1..=3 {
        press(&mut rider, "a", "sum=", round)?;
        let (now, pool) = charges(&host, &["payer", "rider"])?;
        ensure!(now.resident == before.resident && now.payer == before.payer, "{before:?}, {now:?}");
        ensure!(pool["saved_bytes"] == 4 * MIB, "both have all of it: {pool}");
    }
    for guest in [&mut payer, &mut rider] {
        guest.type_keys("q")?;
        finish(guest)?;
    }
    Ok(())
}
