//! Images that the balancer fills: what is touched is there, exactly that, and never more than the budget.

use super::{MIB, finish, start, totals};
use accounting::System;
use anyhow::{Result, ensure};
use balancer::objects::PoolObject;
use e2e::{Guest, Host, wait};
use rustix::fs::Access;
use std::fs;
use std::path::Path;

const PAGE: usize = 4096;
const GRANULE_PAGES: u64 = 16;
const MARK: u64 = 0x9e37_79b9_7f4a_7c15;

/// Why faults cannot be watched here, if they cannot.
fn missing() -> Option<String> {
    // SAFETY: a plain system call; a descriptor that comes is closed.
    let is_permitted = unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC);
        libc::close(fd as i32);
        fd >= 0
    };
    let device = || rustix::fs::access("/dev/userfaultfd", Access::READ_OK | Access::WRITE_OK);
    (!is_permitted && device().is_err())
        .then(|| "userfaultfd is not permitted, and /dev/userfaultfd is not for this user".into())
}

/// A host with this backing of the pool, and an image of so many MiB; `None` where that cannot be.
pub fn host(mib: u64, backing: &str, more: &[&str]) -> Result<Option<(Host, String)>> {
    if let Some(why) = missing().filter(|_| backing == "managed") {
        skip::skip!(Userfaultfd, "a managed pool cannot be used: {why}");
        return Ok(None);
    }
    let mut host = Host::without_balancer()?;
    let (tree, store) = (host.path("tree"), host.path("store").display().to_string());
    fs::create_dir(&tree)?;
    let content: Vec<u8> =
        (0..(mib - 1) * MIB / 8).flat_map(|at| at.wrapping_mul(MARK).to_le_bytes()).collect();
    fs::write(tree.join("file"), content)?;
    let built = host.balancer(&["image", "build", &tree.display().to_string(), "--store", &store])?;
    ensure!(built.status.success(), "{built:?}");
    let image = String::from_utf8(built.stdout)?.trim().to_owned();
    host.start_balancer_with(&[&serve(backing), more].concat())?;
    Ok(Some((host, image)))
}

fn serve(backing: &str) -> [&str; 4] {
    ["--pool", backing, "--interval-ms", "100"]
}

/// What a guest finds that reads all of an image.
pub fn sum(host: &Host, image: &str) -> Result<(u64, u64)> {
    let path = host.path("store").join("images").join(format!("{}.erofs", &image[7..]));
    let bytes = fs::read(path)?;
    let word = |at: &[u8]| u64::from_le_bytes(at.try_into().expect("8 bytes"));
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(MARK).rotate_left(7);
    let sum =
        bytes.chunks(PAGE).fold(0, |sum, page| mix(mix(sum, word(&page[..8])), word(&page[PAGE - 8..])));
    Ok((sum, bytes.len() as u64))
}

pub fn guest(host: &Host, name: &str, container: &str, scenario: &str, image: &str) -> Result<Guest> {
    start(host, name, scenario, &["--container", container, "--root", image])
}

fn pool(host: &Host) -> Result<PoolObject> {
    scan(host, &[])
}

/// What a container is charged for images, bytes.
pub fn charged(pool: &PoolObject, container: &str) -> u64 {
    let row = pool.containers.iter().find(|row| row.container.as_str() == container);
    row.map_or(0, |row| row.charged_bytes)
}

/// The pool as it is, after a scan of these guests. All that is there is charged, and more than once only by the
/// accounting system `rss`.
pub fn scan(host: &Host, guests: &[&str]) -> Result<PoolObject> {
    for guest in guests {
        totals(host, guest)?;
    }
    let pool = host.pool()?;
    let (charged, resident) = (pool.charged_bytes, pool.resident_bytes);
    let by_set = host.host_object()?.accounting == System::Rss;
    let is_whole = if by_set { charged >= resident } else { charged == resident };
    ensure!(is_whole && pool.uncharged_frames == 0, "{pool:?}");
    Ok(pool)
}

/// Presses a key and waits until the guest has printed a text so many times.
pub fn press(guest: &mut Guest, key: &str, text: &str, times: usize) -> Result<()> {
    guest.type_keys(key)?;
    wait::until(text, &*guest, || Ok(guest.console().matches(text).count()), |count| *count >= times)?;
    Ok(())
}

/// Mappings of the balancer's memory by a guest: how many, Rss and Pss, bytes.
fn mappings(guest: &Guest) -> Result<(usize, u64, u64)> {
    let text = fs::read_to_string(Path::new("/proc").join(guest.pid().to_string()).join("smaps"))?;
    let (mut inside, mut found) = (false, (0, 0, 0));
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        let bytes = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) * 1024;
        match first {
            "Rss:" if inside => found.1 += bytes,
            "Pss:" if inside => found.2 += bytes,
            _ if first.contains('-') && !first.ends_with(':') => {
                inside = line.contains("memfd:ballast-pool");
                found.0 += usize::from(inside);
            }
            _ => {}
        }
    }
    Ok(found)
}

pub fn exact() -> Result<()> {
    let Some((host, image)) = host(8, "managed", &[])? else { return Ok(()) };
    let (sum, bytes) = sum(&host, &image)?;
    let granules = bytes / (GRANULE_PAGES * PAGE as u64);
    let mut one = guest(&host, "one", "/web/one", "image-granules", &image)?;
    one.wait_for(&format!("granules={granules}"))?;
    ensure!(pool(&host)?.resident_bytes == 0 && totals(&host, "one")?.shared == 0);
    let touched = granules.div_ceil(4);
    press(&mut one, "t", &format!("touched={touched}"), 1)?;
    ensure!(totals(&host, "one")?.shared == touched * GRANULE_PAGES, "{:?}", totals(&host, "one")?);
    let held = pool(&host)?;
    ensure!(held.resident_bytes == touched << 16 && held.mapped_bytes == touched << 16, "{held:?}");
    press(&mut one, "a", &format!("sum={sum}"), 1)?;
    let mut two = guest(&host, "two", "/web/two", "image-granules", &image)?;
    two.wait_for("granules=")?;
    press(&mut two, "a", &format!("sum={sum}"), 1)?;
    for guest in [&one, &two] {
        let (count, rss, pss) = mappings(guest)?;
        println!("{}: {count} mapping, Rss {rss}, Pss {pss}", guest.name);
        ensure!(
            count == 1 && rss == bytes && pss * 2 == rss,
            "{count} mappings, Rss {rss}, Pss {pss} of {bytes}"
        );
        ensure!(totals(&host, &guest.name)?.shared == bytes / PAGE as u64);
    }
    let held = pool(&host)?;
    ensure!(held.resident_bytes == bytes && held.saved_bytes == bytes && held.error_bytes == 0, "{held:?}");
    // The first guest to touch is charged, then the guest that is left.
    let charged = |name: &str| Ok::<u64, anyhow::Error>(charged(&pool(&host)?, name));
    ensure!(charged("/web/one")? == bytes && charged("/web/two")? == 0);
    one.type_keys("q")?;
    finish(&mut one)?;
    wait::until("the other guest is charged", &host, || charged("/web/two"), |charged| *charged == bytes)?;
    two.type_keys("q")?;
    finish(&mut two)?;
    wait::until("the pool is charged", &host, || charged("/common"), |charged| *charged == bytes)?;
    Ok(())
}

pub fn evicts() -> Result<()> {
    let Some((host, image)) = host(4, "managed", &[])? else { return Ok(()) };
    host.set_max("/common", MIB)?;
    let sum = sum(&host, &image)?.0;
    let mut guest = guest(&host, "a", "/web/a", "image-granules", &image)?;
    guest.wait_for("granules=")?;
    for round in 1..=3 {
        press(&mut guest, "a", &format!("sum={sum}"), round)?;
        let held = pool(&host)?;
        ensure!(held.resident_bytes <= MIB, "{held:?}");
        let totals = totals(&host, "a")?;
        ensure!(totals.shared * PAGE as u64 == held.mapped_bytes, "{totals:?} {held:?}");
    }
    guest.type_keys("q")?;
    finish(&mut guest)
}

/// Guests of one domain touch all there is while a guest of another domain is within its share: it keeps its pages.
fn keeps_its_share(attackers: usize) -> Result<()> {
    let Some((host, image)) = host(8, "managed", &[])? else { return Ok(()) };
    host.set_max("/common", 4 * MIB)?;
    let mut evil = Vec::new();
    for index in 0..attackers {
        let mut guest = guest(&host, &format!("evil{index}"), "/evil", "image-thrash", &image)?;
        guest.wait_for("thrashing")?;
        evil.push(guest);
    }
    // The pool is full by now. A half of it is the other domain's.
    let mut victim = guest(&host, "victim", "/web", "image-granules", &image)?;
    victim.wait_for("granules=")?;
    press(&mut victim, "t", "touched=", 1)?;
    let touched = totals(&host, "victim")?.shared;
    ensure!(touched == 32 * GRANULE_PAGES, "{touched}");
    for _ in 0..20 {
        let held = pool(&host)?;
        ensure!(held.resident_bytes <= 4 * MIB, "{held:?}");
        ensure!(totals(&host, "victim")?.shared == touched, "the other guest lost pages");
        for row in held.guests.iter().filter(|row| row.guest == "victim") {
            ensure!(row.charged_bytes == 32 << 16, "it is charged for its own pages alone: {row:?}");
        }
        host.ticks("victim", 1)?;
    }
    for guest in evil {
        drop(guest);
    }
    victim.type_keys("q")?;
    finish(&mut victim)
}

pub fn thrashes() -> Result<()> {
    keeps_its_share(1)
}

pub fn fills_through_many() -> Result<()> {
    keeps_its_share(4)
}

pub fn survives() -> Result<()> {
    let Some((mut host, image)) = host(4, "managed", &[])? else { return Ok(()) };
    let sum = sum(&host, &image)?.0;
    let mut guest = guest(&host, "a", "/web/a", "image-granules", &image)?;
    guest.wait_for("granules=")?;
    press(&mut guest, "t", "touched=", 1)?;
    host.kill_balancer();
    // What it has it keeps.
    press(&mut guest, "t", "touched=", 2)?;
    guest.type_keys("a")?;
    // It sleeps in a fault, or it has read all. A guest that waits for a key, or reads, spins.
    let mut asleep = 0;
    let look = || {
        asleep = if guest.is_asleep()? { asleep + 1 } else { 0 };
        Ok((asleep, guest.console().contains("sum=")))
    };
    let (_, read_all) =
        wait::until("the guest waits for a page", &guest, look, |(asleep, read)| *asleep >= 10 || *read)?;
    ensure!(!read_all, "it got the rest without a balancer");
    host.start_balancer_with(&serve("managed"))?;
    guest.wait_for(&format!("sum={sum}"))?;
    let held = pool(&host)?;
    ensure!(held.resident_bytes == held.mapped_bytes, "{held:?}");
    let shared = totals(&host, "a")?.shared;
    ensure!(held.mapped_bytes == shared * PAGE as u64, "{held:?}, {shared} frames");
    guest.type_keys("q")?;
    finish(&mut guest)
}

/// What guests map and containers are charged after each of some steps, bytes, and the published error bound.
type Steps = Vec<(Vec<u64>, u64)>;

fn steps(backing: &str, accounting: &str) -> Result<Option<Steps>> {
    let Some((host, image)) = host(8, backing, &["--accounting", accounting])? else { return Ok(None) };
    let mut guests = Vec::new();
    for name in ["one", "two"] {
        let mut guest = guest(&host, name, &format!("/web/{name}"), "image-granules", &image)?;
        guest.wait_for("granules=")?;
        guests.push(guest);
    }
    let mut seen = Vec::new();
    for (index, key, told) in [(0, "t", "touched="), (1, "t", "touched="), (1, "a", "sum="), (0, "a", "sum=")]
    {
        press(&mut guests[index], key, told, 1)?;
        let pool = scan(&host, &["one", "two"])?;
        let alone = |name| pool.guests.iter().find(|row| row.guest == name).map_or(0, |row| row.alone_bytes);
        let all = vec![alone("one"), alone("two"), charged(&pool, "/web/one"), charged(&pool, "/web/two")];
        seen.push((all, pool.error_bytes));
    }
    for guest in &mut guests {
        guest.type_keys("q")?;
        finish(guest)?;
    }
    Ok(Some(seen))
}

pub fn sampled_and_exact() -> Result<()> {
    for accounting in ["static", "partial", "zones"] {
        let exact = steps("managed", accounting)?;
        let sampled = steps("pagecache", accounting)?;
        let (Some(exact), Some(sampled)) = (exact, sampled) else { return Ok(()) };
        for (step, ((exact, none), (sampled, error))) in exact.iter().zip(&sampled).enumerate() {
            println!("{accounting}, step {step}: exact {exact:?}, sampled {sampled:?}, error {error}");
            let off = exact.iter().zip(sampled).map(|(exact, sampled)| exact.abs_diff(*sampled)).max();
            ensure!(*none == 0 && off <= Some(*error), "{exact:?} and {sampled:?}, error {error}");
        }
    }
    Ok(())
}
