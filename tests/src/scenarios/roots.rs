//! Guests on one root: read-only images that all of them map, and a layer of its own above for each.

use crate::engine::Engine;
use crate::host::Host;
use crate::linux::{Images, Linux, LinuxGuest, SOON};
use crate::wait;
use anyhow::{Context, Result, ensure};
use guest_images::Agent;
use serde_json::Value;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// Layers of a root with services, lowest first.
const SERVICES: [&str; 3] = ["base", "services", "database"];
/// The services' layer alone, as a guest sees it under [`SERVICES`].
const SERVICES_LAYER: &str = "/images/1";
/// A large file of that layer.
const LARGE_FILE: &str = "/root/usr/lib/x86_64-linux-gnu/libLLVM-14.so.1";
/// How long reading all of an image may take, and each of the benchmarks. Emulated, on a busy machine.
const LONG: Duration = Duration::from_secs(240);
/// Guests that read the same image.
const READERS: usize = 4;
/// Keys written before the limits change and read back afterwards.
const KEYS: u32 = 2000;
/// Rounds of a lowered and a raised limit.
const ROUNDS: usize = 3;

/// Runs a command in the guest's root, which must succeed; returns what it printed.
fn run(agent: &mut Agent, command: &str) -> Result<String> {
    let ran = agent.run(command, LONG)?;
    ensure!(ran.code == 0, "{command}: exit code {}: {}", ran.code, ran.output);
    Ok(ran.output.trim().to_owned())
}

/// Waits for a program that was started.
fn ended(agent: &mut Agent, name: &str) -> Result<String> {
    let ran = agent.wait(name, LONG)?;
    ensure!(ran.ended && ran.code == 0, "{name}: {ran:?}");
    Ok(ran.output)
}

fn redis(agent: &mut Agent) -> Result<String> {
    agent.start("redis", "redis-server --save '' --appendonly no")?;
    run(agent, "until redis-cli ping | grep -q PONG; do sleep 0.3; done")?;
    run(
        agent,
        &format!("seq 1 {KEYS} | awk '{{print \"SET key:\"$1\" value:\"$1*7919}}' | redis-cli --pipe"),
    )?;
    // Something to lose when the limit falls.
    run(agent, "redis-cli setrange large 67108863 x")?;
    keys(agent)
}

/// A checksum of every value, by key, and the length of the large one.
fn keys(agent: &mut Agent) -> Result<String> {
    let read =
        format!("seq 1 {KEYS} | awk '{{print \"GET key:\"$1}}' | redis-cli | cksum; redis-cli strlen large");
    run(agent, &read)
}

fn postgres(agent: &mut Agent) -> Result<()> {
    let server =
        "runuser -u postgres -- postgres -D /var/lib/postgresql/15/main -k /tmp -c jit=off -c fsync=off";
    agent.start("postgres", server)?;
    run(agent, "until pg_isready -q -h /tmp; do sleep 0.3; done")?;
    run(agent, "createdb -U postgres -h /tmp bench && pgbench -U postgres -h /tmp -i -s 1 -q bench")?;
    Ok(())
}

/// What pgbench promises: all balances and the history sum to the same amount. `t`, and the transactions.
fn balances(agent: &mut Agent) -> Result<String> {
    let sums = "select (select sum(abalance) from pgbench_accounts) = sum(delta) and \
                (select sum(tbalance) from pgbench_tellers) = sum(delta) and \
                (select sum(bbalance) from pgbench_branches) = sum(delta), count(*) from pgbench_history";
    run(agent, &format!("psql -U postgres -h /tmp -Atc '{sums}' bench"))
}

pub fn services_under_limits(images: &Images) -> Result<()> {
    let host = Host::with_store(&images.library)?;
    let root = images.root(&SERVICES)?;
    let start = |name: &str, container: &str| -> Result<(LinuxGuest, Agent)> {
        let limit = Engine::current().limit_mib(480);
        let flags = ["--container", container, "--container-limit", &limit, "--root", &root];
        let linux = Linux { flags: &flags, ..Linux::default() }.start(&host, images, name)?;
        let agent = linux.agent()?;
        Ok((linux, agent))
    };
    let (cache, mut a) = start("cache", "/web/cache")?;
    let (db, mut b) = start("db", "/web/db")?;
    let before = redis(&mut a)?;
    postgres(&mut b)?;

    a.start(
        "bench",
        "redis-benchmark -q -c 4 -n 6000 -t set,get,lpush,lpop | tr '\\r' '\\n' | grep 'per second'",
    )?;
    b.start("bench", "pgbench -U postgres -h /tmp -c 2 -t 150 bench")?;
    for round in 0..ROUNDS {
        for max in [220, 480] {
            host.set_max("/web/cache", Engine::current().limit(max * MIB))?;
            host.set_max("/web/db", Engine::current().limit(max * MIB))?;
            std::thread::sleep(Duration::from_secs(4));
            for linux in [&cache, &db] {
                host.assert_near_kernel(&linux.guest).with_context(|| format!("round {round}, {max}M"))?;
            }
        }
    }
    println!("redis: {}", ended(&mut a, "bench")?.trim().replace('\n', "; "));
    let said = ended(&mut b, "bench")?;
    let line = |start: &str| said.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    println!("postgres: {}; {}", line("number of transactions actually"), line("tps"));

    // With the limit low: the balloon must have worked, and nothing may be lost.
    for (container, name) in [("/web/cache", "cache"), ("/web/db", "db")] {
        host.set_max(container, Engine::current().limit(220 * MIB))?;
        wait::until(
            "the balloon holds what is above the limit",
            // One that ran out of memory just now is left in peace for half of it.
            SOON * 2,
            || host.get(&format!("/v1/guests/{name}")),
            |guest| guest["balloon"]["actual_bytes"].as_u64().is_some_and(|bytes| bytes <= 224 * MIB),
        )?;
    }
    ensure!(keys(&mut a)? == before, "redis lost keys");
    let sums = balances(&mut b)?;
    ensure!(sums == "t|300", "pgbench's balances and transactions: {sums}");
    for agent in [&mut a, &mut b] {
        ensure!(agent.vmstat("oom_kill")? == 0, "a program was killed");
    }
    Ok(())
}

/// What a `vmm` holds of images: its proportional part of the pages that it maps, bytes.
fn image_part(linux: &LinuxGuest) -> Result<u64> {
    let pid = linux.guest.machine_pid().unwrap_or_else(|| linux.guest.pid());
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut of_image = false;
    let mut kib = 0;
    for line in smaps.lines() {
        match line.strip_prefix("Pss:") {
            Some(amount) if of_image => kib += amount.trim().trim_end_matches(" kB").parse::<u64>()?,
            Some(_) => {}
            // The first line of a mapping begins with its addresses, and ends with its file.
            None if line.split(' ').next().is_some_and(|word| word.contains('-')) => {
                of_image = line.ends_with(".erofs");
            }
            None => {}
        }
    }
    Ok(kib * 1024)
}

pub fn one_image_for_all(images: &Images) -> Result<()> {
    let host = Host::with_store(&images.library)?;
    let root = images.root(&SERVICES)?;
    let services = images.digest("services")?;
    let hex = services.strip_prefix("sha256:").context("a digest")?;
    let image = images.library.join(format!("images/{hex}.erofs"));
    let image_bytes = image.metadata()?.len();
    ensure!(image_bytes >= 200 * MIB, "an image of {image_bytes} bytes");
    let mut guests = Vec::new();
    let mut checksum = None;
    let mut first_part = 0;
    for number in 0..READERS {
        let name = format!("r{number}");
        // One trust domain: that of /web.
        let container = format!("/web/{name}");
        let flags = ["--container", &container, "--root", &root];
        let linux =
            Linux { memory: "256M", flags: &flags, ..Linux::default() }.start(&host, images, &name)?;
        let mut agent = linux.agent()?;
        let read = agent.read_tree(SERVICES_LAYER, LONG)?;
        ensure!(read.dax_bytes == read.bytes && read.dax_files == read.files, "not all by DAX: {read:?}");
        let cached = read.cached_after_bytes.saturating_sub(read.cached_before_bytes);
        ensure!(cached * 100 < image_bytes, "the guest's page cache grew by {cached} bytes");
        ensure!(*checksum.get_or_insert(read.checksum.clone()) == read.checksum, "another content: {read:?}");
        host.frames(&name)?;
        guests.push((linux, agent));
        let parts = guests.iter().map(|(linux, _)| image_part(linux)).sum::<Result<u64>>()?;
        println!(
            "{} guests: images take {parts} bytes of the host; page cache of {name} + {cached} bytes",
            number + 1
        );
        if number == 0 {
            first_part = parts;
            ensure!(parts >= read.bytes, "the host has all that was read: {parts} of {}", read.bytes);
        }
        let bound = first_part + image_bytes / 50 * number as u64;
        ensure!(parts <= bound, "{} guests share {image_bytes} bytes, and take {parts}", number + 1);
        assert_charged(&host, &services, read.bytes, number + 1)?;
    }

    // What one guest writes is its own.
    let (linux, writer) = &mut guests[0];
    let before = writer.meminfo("anon_pages_bytes")?;
    let held = writer.write_pages("own", LARGE_FILE, 10, 7)?;
    let grown = writer.meminfo("anon_pages_bytes")?.saturating_sub(before);
    ensure!(
        grown.abs_diff(held.bytes / 10) <= MIB,
        "a tenth of {} bytes became private: {grown}",
        held.bytes
    );
    ensure!(writer.verify("own")?.intact);
    host.assert_near_kernel(&linux.guest)?;
    let (_, reader) = &mut guests[1];
    let again = reader.read_tree(SERVICES_LAYER, LONG)?;
    ensure!(Some(again.checksum) == checksum, "another guest reads what was written");
    let checked =
        host.balancer(&["image", "check", &services, "--store", &images.library.display().to_string()])?;
    ensure!(checked.status.success(), "{checked:?}");
    Ok(())
}

/// Each page of the image is charged once, and each guest is seen to map what it read.
fn assert_charged(host: &Host, digest: &str, read_bytes: u64, guests: usize) -> Result<()> {
    let pool = host.get("/v1/pool?max_age_ms=0")?;
    let number = |of: &Value, key: &str| of[key].as_u64().with_context(|| format!("{key} in {of}"));
    let (resident, charged) = (number(&pool, "resident_bytes")?, number(&pool, "charged_bytes")?);
    ensure!(charged == resident, "{charged} bytes are charged of {resident} that are there");
    ensure!(number(&pool, "uncharged_frames")? == 0, "{pool}");
    let image = pool["images"].as_array().context("images")?.iter().find(|image| image["digest"] == digest);
    let image = image.context("the image that guests map")?;
    let sharers = image["sharers"].as_array().context("sharers")?;
    ensure!(sharers.len() == guests, "{guests} guests map it: {sharers:?}");
    for sharer in sharers {
        let (mapped, error) = (number(sharer, "mapped_bytes")?, number(image, "error_bytes")?);
        ensure!(mapped + error >= read_bytes, "{sharer} read {read_bytes} bytes, error {error}");
    }
    let (alone, mapped) = (number(image, "alone_bytes")?, number(image, "mapped_bytes")?);
    println!(
        "{guests} guests: {alone} bytes alone, {mapped} together; the pool holds {resident}, all charged"
    );
    ensure!(mapped <= number(image, "resident_bytes")? && alone >= read_bytes * guests as u64 * 99 / 100);
    Ok(())
}
