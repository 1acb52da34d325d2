//! What happens in the demo, in order. Each step is checked: a demo that does not show what it says fails.

use super::screen::Screen;
use super::sharing;
use super::summary::{Moved, Summary};
use super::{MEMBERS, MIB, Options, RAM, TOGETHER, together_bytes};
use crate::engine::Engine;
use crate::host::Host;
use crate::linux::{Images, Linux, LinuxGuest};
use crate::wait;
use anyhow::{Context, Result, ensure};
use guest_images::Agent;
use serde_json::json;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What web and batch hold all the time.
const KEPT_BYTES: [u64; 2] = [48 * MIB, 64 * MIB];
/// db's load grows by so much, so many times: no faster than a program that works on what it has.
const STEP_BYTES: u64 = 40 * MIB;
const STEPS: u64 = 7;
/// Size of the file that db reads.
const FILE_BYTES: u64 = 240 * MIB;
const LOWERED_BYTES: u64 = 192 * MIB;
const RAISED_BYTES: u64 = 448 * MIB;
/// What web fills once its limit is raised; with its other memory more than the limit before.
const FILL_BYTES: u64 = 220 * MIB;
/// Between steps, so that a reader can follow.
const PAUSE: Duration = Duration::from_secs(3);

struct Running {
    linux: LinuxGuest,
    agent: Agent,
}

/// Runs the demo; its output goes to standard output.
///
/// # Errors
/// When a step does not show what it is there to show.
pub fn run(images: &Images, options: &Options) -> Result<()> {
    let host = Host::with_store(&images.library)?;
    let engine = Engine::current();
    let (lowered_bytes, raised_bytes) = (engine.limit(LOWERED_BYTES), engine.limit(RAISED_BYTES));
    let together = json!({ "max_bytes": together_bytes() });
    let answer = host.request("PUT", &format!("/v1/containers{}", TOGETHER.0), Some(&together))?;
    ensure!(answer.status < 300, "{answer:?}");
    let screen = Screen::start(host.run_dir().api_socket(), options.live);
    let limits: Vec<String> =
        MEMBERS.iter().map(|member| format!("{} {}M", member.name, member.limit_bytes() / MIB)).collect();
    screen.say(&format!(
        "Three guests boot, each with {RAM} of RAM. Limits: {}. Together they may hold {}M.",
        limits.join(", "),
        together_bytes() / MIB
    ));
    let (mut guests, boots) = boot(&host, images)?;

    screen.say("web and batch fill some memory and idle.");
    for (index, bytes) in [(0, KEPT_BYTES[0]), (2, KEPT_BYTES[1])] {
        guests[index].agent.alloc("kept", bytes, index as u64)?;
    }
    wait::until("all gave what they were asked for at their start", &host, || settled(&host), |all| *all)?;
    sleep(PAUSE);

    let others = |host: &Host| {
        Ok::<u64, anyhow::Error>(
            host.guest_object("web")?.target_bytes + host.guest_object("batch")?.target_bytes,
        )
    };
    let (grown_from, lent_from) = (guests[1].linux.guest.resident_bytes()?, others(&host)?);
    screen.say(&format!(
        "db comes under load: it fills {}M. What web and batch do not use moves to db.",
        STEP_BYTES * STEPS / MIB
    ));
    for step in 0..STEPS {
        guests[1].agent.alloc(&format!("load{step}"), STEP_BYTES, step)?;
        sleep(Duration::from_secs(1));
    }
    sleep(PAUSE);
    let (grown_to, lent_to) = (guests[1].linux.guest.resident_bytes()?, others(&host)?);
    ensure!(lent_to < lent_from, "web and batch gave nothing: targets {lent_from} and {lent_to} bytes");
    ensure!(
        grown_to - grown_from >= STEP_BYTES * STEPS * 8 / 10,
        "db grew from {grown_from} to {grown_to} bytes only"
    );

    let mut verified_bytes = 0;
    screen.say(
        "db is done and frees it. The balancer does not ask for it: \
         the guest reports free pages, and the host has them again.",
    );
    for step in 0..STEPS {
        verified_bytes += verify(&mut guests[1].agent, &format!("load{step}"))?;
        guests[1].agent.free(&format!("load{step}"))?;
    }
    let freed = fall(&guests[1], grown_to - STEP_BYTES * STEPS * 9 / 10)?;

    screen.say(&format!("db reads its disk of {}M: the guest's page cache grows.", FILE_BYTES / MIB));
    // Mapped, so that the cache outlives the reading.
    guests[1].agent.map_file("disk", "/dev/vda")?;
    sleep(PAUSE);

    let patch = |container: &str, max: u64| -> Result<()> {
        screen.say(&format!(
            "A user changes a limit: PATCH /v1/containers{container} {{\"max_bytes\": {max}}}"
        ));
        host.set_max(container, max)
    };
    let before = guests[1].linux.guest.resident_bytes()?;
    ensure!(before > lowered_bytes, "db holds {before} bytes, less than its limit will be");
    let started = Instant::now();
    patch(MEMBERS[1].container, lowered_bytes)?;
    let mut lowered = fall(&guests[1], before - (before - lowered_bytes) * 9 / 10)?;
    lowered.took = started.elapsed();
    fall(&guests[1], lowered_bytes)?;
    sleep(PAUSE);

    let started = Instant::now();
    patch(MEMBERS[0].container, raised_bytes)?;
    let wanted = host.guest_object("web")?.target_bytes;
    wait::until(
        "web's balloon deflates",
        &host,
        || Ok(host.guest_object("web")?.actual_bytes),
        |actual| *actual >= wanted * 9 / 10,
    )?;
    let took = started.elapsed();
    guests[0].agent.alloc("more", FILL_BYTES, 99)?;
    sleep(PAUSE);
    let held = guests[0].linux.guest.resident_bytes()?;
    ensure!(held > MEMBERS[0].limit_bytes(), "web holds {held} bytes: no more than its limit before");

    screen.say("Every guest compares what it holds with what it wrote.");
    for (index, name) in [(0, "kept"), (0, "more"), (2, "kept")] {
        verified_bytes += verify(&mut guests[index].agent, name)?;
    }
    let mut overheads = Vec::new();
    for member in MEMBERS {
        // Compares the table with the kernel at this moment, and checks that the states tile.
        host.frames(member.name)?;
        overheads.push(host.guest_object(member.name)?.overhead_bytes);
    }
    let balancer_bytes = balancer_bytes(&host)?;
    for guest in &mut guests {
        guest.agent.power_off()?;
        let status = guest.linux.guest.wait_end()?;
        ensure!(status.success(), "{}: {status}", guest.linux.guest.name);
    }
    let shared = sharing::run(&host, images, &screen)?;
    let summary = Summary {
        boots,
        grown: [grown_from, grown_to],
        lent: [lent_from, lent_to],
        freed,
        lowered,
        raised: Moved { bytes: FILL_BYTES, took },
        verified_bytes,
        vmm_overhead_bytes: overheads.into_iter().min().context("three guests")?,
        balancer_bytes,
        shared,
    };
    let seen = screen.stop()?;
    println!("{}", summary.text(seen));
    Ok(())
}

fn boot(host: &Host, images: &Images) -> Result<(Vec<Running>, Vec<Duration>)> {
    let disk = host.path("db.img");
    std::fs::File::create(&disk)?.set_len(FILE_BYTES)?;
    let disk = format!("{},ro", disk.display());
    let (mut guests, mut boots) = (Vec::new(), Vec::new());
    for member in MEMBERS {
        let max = format!("{}M", member.limit_bytes() / MIB);
        let mut flags = vec!["--container", member.container, "--container-limit", &max];
        if member.name == "db" {
            flags.extend(["--disk", &disk]);
        }
        let started = Instant::now();
        let linux =
            Linux { memory: RAM, flags: &flags, ..Linux::default() }.start(host, images, member.name)?;
        boots.push(started.elapsed());
        let agent = linux.agent()?;
        guests.push(Running { linux, agent });
    }
    Ok((guests, boots))
}

/// True once every guest holds what it was asked to: until then what one is to have may wait for what others boot with.
fn settled(host: &Host) -> Result<bool> {
    MEMBERS.iter().try_fold(true, |all, member| {
        let guest = host.guest_object(member.name)?;
        Ok(all && guest.actual_bytes.abs_diff(guest.target_bytes) <= 2 * MIB)
    })
}

/// Waits until the host holds no more for a guest.
fn fall(guest: &Running, to_bytes: u64) -> Result<Moved> {
    let (started, before) = (Instant::now(), guest.linux.guest.resident_bytes()?);
    let look = || guest.linux.guest.resident_bytes();
    let after = wait::until("host memory falls", &guest.linux.guest, look, |bytes| *bytes <= to_bytes)?;
    Ok(Moved { bytes: before.saturating_sub(after), took: started.elapsed() })
}

fn verify(agent: &mut Agent, name: &str) -> Result<u64> {
    let verified = agent.verify(name)?;
    ensure!(verified.intact, "{name}: {verified:?}");
    Ok(verified.bytes)
}

fn balancer_bytes(host: &Host) -> Result<u64> {
    let pid = host.host_object()?.balancer_pid;
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm.split_whitespace().nth(1).context("resident pages")?.parse()?;
    Ok(pages * 4096)
}
