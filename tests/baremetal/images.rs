//! Images that guests share: read, never written, and never charged as private memory. `i1` to `i8` in a test's name
//! are the invariants that images must keep (ARCHITECTURE.md).

use super::{MIB, expect_code, finish, start, totals};
use anyhow::{Context, Result, ensure};
use e2e::{Guest, Host, wait};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

const PAGE: u64 = 4096;
/// What the guest looks for: each page begins and ends with its number times this.
const MARK: u64 = 0x9e37_79b9_7f4a_7c15;

fn bytes(length: u64) -> Vec<u8> {
    let mut bytes = vec![0x5a; usize::try_from(length).expect("an image fits into memory")];
    for (page, chunk) in (0u64..).zip(bytes.chunks_mut(PAGE as usize)) {
        let mark = page.wrapping_mul(MARK).to_le_bytes();
        chunk[..8].copy_from_slice(&mark);
        chunk[PAGE as usize - 8..].copy_from_slice(&mark);
    }
    bytes
}

fn image(host: &Host, mib: u64) -> Result<PathBuf> {
    let path = host.path("image.erofs");
    fs::write(&path, bytes(mib * MIB))?;
    Ok(path)
}

fn with_image(host: &Host, name: &str, scenario: &str, image: &Path, more: &[&str]) -> Result<Guest> {
    let root = image.display().to_string();
    let flags: Vec<&str> = ["--root", &root].into_iter().chain(more.iter().copied()).collect();
    start(host, name, scenario, &flags)
}

/// Of all mappings of a file by a process: how many there are, and sums of Rss, Pss and Private_Dirty, bytes.
fn mappings(guest: &Guest, file: &Path) -> Result<(usize, u64, u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{}/smaps", guest.pid()))?;
    let (mut inside, mut count) = (false, 0);
    let mut sums = [0; 3];
    for line in text.lines() {
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        if first.contains('-') && !first.ends_with(':') {
            inside = line.ends_with(&file.display().to_string());
            count += usize::from(inside);
        } else if inside {
            let kib = || line.split_ascii_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
            for (sum, key) in sums.iter_mut().zip(["Rss:", "Pss:", "Private_Dirty:"]) {
                if first == key {
                    *sum += kib().context("a figure of smaps")? * 1024;
                }
            }
        }
    }
    Ok((count, sums[0], sums[1], sums[2]))
}

pub fn reads() -> Result<()> {
    let host = Host::without_balancer()?;
    let path = image(&host, 4)?;
    let mut guest = with_image(&host, "a", "image-read", &path, &["--balancer", "none"])?;
    guest.wait_for("read=1024")?;
    guest.type_keys("q")?;
    finish(&mut guest)?;
    // More RAM than fits below 4 GiB: the image lies behind it.
    let more = ["--balancer", "none", "--memory", "4G", "--kernel", super::ELF, "--cmdline", "image-read"];
    let root = path.display().to_string();
    let flags: Vec<&str> = ["--root", &root].into_iter().chain(more).collect();
    let mut guest = host.guest("big", &flags)?;
    guest.wait_for("read=1024")?;
    guest.type_keys("q")?;
    finish(&mut guest)
}

pub fn shares() -> Result<()> {
    const MIBS: u64 = 32;
    let host = Host::new()?;
    let path = image(&host, MIBS)?;
    let pages = MIBS * MIB / PAGE;
    let mut guests = Vec::new();
    for name in ["a", "b"] {
        let mut guest = with_image(&host, name, "image-read", &path, &["--container", &format!("/{name}")])?;
        guest.wait_for(&format!("read={pages}"))?;
        guests.push(guest);
    }
    for guest in &guests {
        let (count, rss, pss, dirty) = mappings(guest, &path)?;
        println!("{}: {count} mapping, Rss {rss}, Pss {pss}", guest.name);
        ensure!(count == 1 && dirty == 0, "{}: {count} mappings, {dirty} bytes of its own", guest.name);
        ensure!(rss == MIBS * MIB && pss * 2 == rss, "{}: Rss {rss}, Pss {pss}", guest.name);
        let open = fs::read_dir(format!("/proc/{}/fd", guest.pid()))?
            .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
            .filter(|target| *target == path)
            .count();
        ensure!(open == 1, "{}: {open} descriptors of the image", guest.name);
        let totals = totals(&host, &guest.name)?;
        ensure!(totals.shared == pages, "{totals:?}");
        ensure!(totals.frames == (128 + MIBS) * MIB / PAGE, "RAM and image: {totals:?}");
        let error = totals.shared_error_frames_max;
        ensure!(error < pages / 2 && totals.shared_checked_age_ms.is_some(), "{totals:?}");
        host.assert_near_kernel(guest)?;
        // No guest is charged for it as for its own memory.
        let container = host.container(&format!("/{}", guest.name))?;
        let usage = container.usage_bytes;
        let own = totals.private * PAGE;
        println!("{}: private {own}, usage {usage}", guest.name);
        ensure!(usage >= own && usage < own + 16 * MIB, "{container:?}");
    }
    // Nor at any moment until the kernel's figures were read again.
    let read = Instant::now();
    let look = || -> Result<bool> {
        let mut are_new = true;
        for guest in &guests {
            let object = host.guest_object(&guest.name)?;
            let own = object.frames.private * PAGE;
            let (usage, error) = (object.usage_bytes, object.usage_error_bytes);
            let (resident, age_ms) = (object.resident_bytes, object.resident_age_ms);
            ensure!(usage < own + 16 * MIB, "an image is charged as a guest's own memory: {object:?}");
            ensure!(Some(usage + error) >= resident, "the rest is not in the error bound: {object:?}");
            // A tick after the pages were mapped, and one more.
            are_new &= u128::from(age_ms.context("its age")?) + 1500 < read.elapsed().as_millis();
        }
        Ok(are_new)
    };
    wait::until("the kernel's figures are read again", &host, look, |are_new| *are_new)?;
    // The kernel takes pages away, and the table follows.
    drop(guests.pop());
    let (_, rss, pss, _) = mappings(&guests[0], &path)?;
    ensure!(rss == pss, "alone with it: Rss {rss}, Pss {pss}");
    guests[0].type_keys("q")?;
    finish(&mut guests[0])
}

pub fn stores() -> Result<()> {
    let host = Host::new()?;
    let path = image(&host, 4)?;
    let mut victim = with_image(&host, "victim", "image-read", &path, &[])?;
    victim.wait_for("read=1024")?;
    let mut guest = with_image(&host, "a", "image-store", &path, &[])?;
    guest.wait_for("stored")?;
    let stores = totals(&host, "a")?.image_stores;
    println!("{stores} stores were dropped");
    // Six ways to store, in four places; a store of 8 bytes byte by byte may be one exit or eight.
    ensure!((4 * 6..=4 * 13).contains(&stores), "{stores} stores");
    ensure!(totals(&host, "victim")?.image_stores == 0);
    victim.type_keys("k")?;
    wait::until(
        "the other guest reads old bytes",
        &host,
        || Ok(victim.console().matches("read=1024").count()),
        |n| *n == 2,
    )?;
    ensure!(fs::read(&path)? == bytes(4 * MIB), "the file changed");
    let (_, _, _, dirty) = mappings(&guest, &path)?;
    ensure!(dirty == 0, "a store made a page of its own: {dirty}");
    guest.type_keys("k")?;
    finish(&mut guest)?;
    victim.type_keys("q")?;
    finish(&mut victim)
}

pub fn storms() -> Result<()> {
    let host = Host::new()?;
    let path = image(&host, 2)?;
    let mut victim = with_image(&host, "victim", "image-read", &path, &[])?;
    victim.wait_for("read=512")?;
    let mut guest = with_image(&host, "a", "image-storm", &path, &[])?;
    guest.wait_for("storming")?;
    expect_code(&mut guest, 6)?;
    ensure!(guest.errors().contains("into images, which are read-only"), "{}", guest.errors());
    ensure!(guest.errors().lines().count() < 20, "a storm fills no log: {}", guest.errors());
    let events = host.events()?;
    let words = "times into images, which are read-only";
    ensure!(events.iter().any(|event| event.detail.contains(words)), "{events:?}");
    victim.type_keys("k")?;
    let reads = || Ok(victim.console().matches("read=512").count());
    wait::until("the other guest runs on", &host, reads, |n| *n == 2)?;
    ensure!(fs::read(&path)? == bytes(2 * MIB), "the file changed");
    victim.type_keys("q")?;
    finish(&mut victim)
}

pub fn devices() -> Result<()> {
    let host = Host::without_balancer()?;
    let (path, disk) = (image(&host, 2)?, super::image(&host)?);
    let mut guest = with_image(&host, "a", "image-devices", &path, &["--balancer", "none", "--disk", &disk])?;
    guest.wait_for("harmless")?;
    finish(&mut guest)?;
    ensure!(fs::read(&path)? == bytes(2 * MIB), "the file changed");
    let written = fs::read(&disk)?;
    let page = PAGE as usize;
    ensure!(written[..page] == bytes(2 * MIB)[5 * page..6 * page], "the disk has the image's bytes");
    Ok(())
}

pub fn ballooned() -> Result<()> {
    let host = Host::new()?;
    let path = image(&host, 2)?;
    let mut guest = with_image(&host, "a", "image-balloon", &path, &[])?;
    guest.wait_for("kept=512")?;
    let totals = totals(&host, "a")?;
    ensure!(totals.ballooned == 0 && totals.reported == 0 && totals.shared == 512, "{totals:?}");
    ensure!(totals.untiled == 0, "{totals:?}");
    guest.type_keys("k")?;
    finish(&mut guest)
}

pub fn cut() -> Result<()> {
    let host = Host::new()?;
    let (path, disk) = (image(&host, 4)?, super::image(&host)?);
    let mut guest = with_image(&host, "a", "image-cut", &path, &["--disk", &disk])?;
    guest.wait_for("read=1024")?;
    ensure!(totals(&host, "a")?.shared == 1024);
    let file = fs::OpenOptions::new().write(true).open(&path)?;
    file.set_len(MIB)?;
    guest.type_keys("k")?;
    guest.wait_for("zeros=768")?;
    let after = totals(&host, "a")?;
    ensure!(after.shared == 256 && after.image_lost_frames == 768, "{after:?}");
    file.set_len(0)?;
    guest.type_keys("k")?;
    guest.wait_for("gone")?;
    finish(&mut guest)
}

pub fn refused() -> Result<()> {
    let host = Host::without_balancer()?;
    for length in [0, 1, 4096, 2 * MIB - 1, 3 * MIB] {
        let path = host.path("odd.erofs");
        fs::write(&path, vec![1; usize::try_from(length)?])?;
        let mut guest = with_image(&host, "a", "image-read", &path, &["--balancer", "none"])?;
        expect_code(&mut guest, 1)?;
        let told = format!("odd.erofs is {length} bytes long, but must be a multiple of 2097152 bytes");
        ensure!(guest.errors().contains(&told), "{length}: {}", guest.errors());
    }
    let good = image(&host, 2)?.display().to_string();
    let (twice, many) = (format!("{good},{good}"), vec!["/no/such"; 17].join(","));
    for (root, code, words) in [
        ("/no/such/image", 1, "/no/such/image"),
        ("/dev/zero", 1, "regular file"),
        ("/", 1, "regular file"),
        (&twice, 1, "can be mapped once"),
        (&many, 1, "at most 16"),
        ("sha256:0123abcd", 1, "--balancer none"),
        ("debian", 2, "a path has a / in it"),
        ("sha256:0123", 2, "first 8"),
        ("", 2, "is not an image"),
    ] {
        let mut guest = start(&host, "a", "image-read", &["--balancer", "none", "--root", root])?;
        expect_code(&mut guest, code)?;
        ensure!(guest.errors().contains(words), "{root}: {}", guest.errors());
    }
    Ok(())
}

pub fn sixteen() -> Result<()> {
    let host = Host::without_balancer()?;
    let mut names = Vec::new();
    for index in 0..16 {
        let path = host.path(&format!("{index}.erofs"));
        fs::write(&path, bytes(2 * MIB))?;
        names.push(path.display().to_string());
    }
    let root = names.join(",");
    let disk = super::image(&host)?;
    let flags = ["--balancer", "none", "--root", &root, "--disk", &disk];
    let mut guest = start(&host, "a", "image-devices", &flags)?;
    guest.wait_for("harmless")?;
    finish(&mut guest)
}
