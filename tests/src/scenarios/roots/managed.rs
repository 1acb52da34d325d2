//! Linux guests on images that the balancer fills: within its budget, exactly, and next to sampled figures of the same
//! guests.

use super::{MIB, image, pool};
use crate::host::Host;
use crate::linux::{Images, Linux, LinuxGuest};
use crate::wait;
use anyhow::{Context, Result, ensure};
use guest_images::Agent;
use serde_json::Value;

/// The layer that the guests share, and where each has it.
const LAYER: (&str, &str) = ("base", "/images/0");
/// Guests of one trust domain, in the order in which they start.
const GUESTS: [&str; 2] = ["/web/one", "/web/two"];
/// What both read at once within a budget, and the budget: less than a half of it.
const PART: &str = "/images/0/usr/share/perl";
const BUDGET_BYTES: u64 = 8 * MIB;
/// What the balancer fills at once: the exact figures are multiples of it.
const GRANULE_BYTES: u64 = 64 << 10;

/// What guests that did the same map and are charged by the API, bytes.
#[derive(Debug, PartialEq, Eq)]
struct Figures {
    mapped: Vec<u64>,
    charged: Vec<u64>,
    /// The error bound that is published with them.
    error: u64,
}

pub fn filled_by_the_balancer(images: &Images) -> Result<()> {
    let exact = figures("managed", images)?;
    let sampled = figures("pagecache", images)?;
    println!("exact {exact:?}, sampled {sampled:?}");
    ensure!(exact.error == 0, "what the balancer fills is known: {exact:?}");
    let pairs = |of: fn(&Figures) -> &Vec<u64>| of(&exact).iter().zip(of(&sampled)).collect::<Vec<_>>();
    for (exact, of_samples) in pairs(|f| &f.mapped).into_iter().chain(pairs(|f| &f.charged)) {
        let off = exact.abs_diff(*of_samples);
        ensure!(
            off <= sampled.error,
            "{of_samples} bytes by samples, {exact} in truth, bound {}",
            sampled.error
        );
    }
    Ok(())
}

/// Two guests boot from the layer and read it with this backing. With the balancer's own, in the end within a budget.
fn figures(backing: &str, images: &Images) -> Result<Figures> {
    let host = Host::with_store_and(&images.library, &["--pool", backing])?;
    let (root, is_managed) = (images.root(&[LAYER.0])?, backing == "managed");
    let mut guests = Vec::new();
    for (name, container) in ["one", "two"].into_iter().zip(GUESTS) {
        let flags = ["--container", container, "--root", &root];
        let linux = Linux { memory: "256M", flags: &flags, ..Linux::default() }.start(&host, images, name)?;
        let agent = linux.agent()?;
        guests.push((linux, agent));
    }
    let mut checksums = Vec::new();
    for (linux, agent) in &mut guests {
        let read = agent.read_tree(LAYER.1)?;
        ensure!(read.dax_bytes == read.bytes, "not all by DAX: {read:?}");
        host.assert_near_kernel(&linux.guest)?;
        checksums.push(read.checksum);
    }
    ensure!(checksums.iter().all(|sum| *sum == checksums[0]), "not all read the same: {checksums:?}");
    let digest = images.digest(LAYER.0)?;
    let seen = pool(&host)?;
    let image = image(&seen, &digest)?;
    let charged = |container: &&str| {
        let row = seen.containers.iter().find(|row| row.container.as_str() == *container);
        row.map_or(0, |row| row.charged_bytes)
    };
    for guest in ["one", "two"] {
        println!("{backing}: {guest} maps {} frames by its table", host.frames(guest)?.totals.shared);
    }
    let figures = Figures {
        mapped: image.sharers.iter().map(|sharer| sharer.mapped_bytes).collect(),
        charged: GUESTS.iter().map(charged).collect(),
        error: image.error_bytes,
    };
    if is_managed {
        let parts = within_budget(&host, &mut guests)?;
        ensure!(parts[0] == parts[1], "within the budget they read {parts:?}");
    }
    Ok(figures)
}

/// The budget falls below what guests map, and pages are evicted; then both read at once, and the pool never holds
/// more. Returns what they read.
fn within_budget(host: &Host, guests: &mut [(LinuxGuest, Agent)]) -> Result<Vec<String>> {
    host.set_max("/common", BUDGET_BYTES)?;
    let held = || Ok(pool(host)?.resident_bytes);
    wait::until("the pool shrinks to its budget", &host, held, |bytes| *bytes <= BUDGET_BYTES)?;
    let mut asked = Vec::new();
    for (_, agent) in guests.iter_mut() {
        asked.push(agent.send("read-tree", &[&PART])?);
    }
    let (mut looks, mut most) = (0, 0);
    let mut answers = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let readers: Vec<_> = guests
            .iter_mut()
            .zip(asked)
            .map(|((_, agent), id)| scope.spawn(move || agent.answer(id, "read-tree")))
            .collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            let pool = pool(host)?;
            let resident = pool.resident_bytes;
            ensure!(resident <= BUDGET_BYTES, "{resident} bytes are held, {BUDGET_BYTES} may be");
            ensure!(resident.is_multiple_of(GRANULE_BYTES), "{resident} bytes are not whole granules");
            (looks, most) = (looks + 1, most.max(resident));
        }
        for reader in readers {
            answers.push(reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??);
        }
        Ok(())
    })?;
    println!("within {BUDGET_BYTES} bytes: {most} at the most, in {looks} samples, each charged once");
    ensure!(most * 10 >= BUDGET_BYTES * 9, "{most} bytes at the most: the budget was not reached");
    let checksum = |read: &Value| Ok(read["checksum"].as_str().context("checksum")?.to_owned());
    answers.iter().map(checksum).collect()
}
