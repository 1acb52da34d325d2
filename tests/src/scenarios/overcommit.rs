//! Four guests whose limits are twice what their host has, with phases of load from a seed.
//!
//! ```text
//!              one slot                     the next
//!   a   heavy: fills, holds, compares  | reads its disk          | idle     a slot ends when all four are done;
//!   b   reads its disk                 | heavy                   |          the heavy guest takes more than a
//!   c   idle                           | holds a little          |          fourth of what guests may have
//!   d   holds a little                 | idle                    |
//! ```
//!
//! Every second the balancer is asked for all figures, and each guest's frames must tile.

use crate::host::Host;
use crate::linux::{Images, Linux, LinuxGuest};
use crate::wait;
use anyhow::{Context, Result, anyhow, ensure};
use balancer::objects::GuestObject;
use guest_images::Agent;
use policy::{Explanation, Health};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Slots: what is done is a function of the seed, on a machine of any speed.
const SLOTS: usize = 4;
/// Ticks of the balancer in a slot, at least: it decides once a second, and needs some readings for that.
const SLOT_TICKS: usize = 12;
/// What guests have of a host: the memory of the lab's machine for this scenario, and where the host is larger, all
/// beyond it is kept from them.
pub const HOST_MIB: u32 = 1024;
const GUESTS: [&str; 4] = ["a", "b", "c", "d"];
/// RAM and limit of each: twice the host together.
const RAM: &str = "512M";
const LIMIT: &str = "512M";
/// What a heavy guest fills, in steps of this.
const STEP_BYTES: u64 = 32 * MIB;
const HEAVY_STEPS: std::ops::Range<u64> = 6..8;
/// What is read of a disk, and what is held a little.
const READ_BYTES: u64 = 128 * MIB;
const LITTLE_BYTES: u64 = 24 * MIB;
/// Less than this does not count as a move.
const MOVED_BYTES: u64 = 48 * MIB;
/// Time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

pub fn moves_to_the_needy(images: &Images) -> Result<()> {
    run(images, None)
}

pub fn works_around_one_without_balloon(images: &Images) -> Result<()> {
    run(images, Some(3))
}

/// What a guest does in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    Heavy { bytes: u64, seed: u64 },
    Read,
    Little { seed: u64 },
    Idle,
}

struct Running {
    linux: LinuxGuest,
    agent: Agent,
}

/// All figures at one moment.
#[derive(Debug)]
struct Sample {
    at_s: f64,
    guests: Vec<Figures>,
    available_bytes: u64,
    budget_bytes: u64,
}

#[derive(Debug, Clone)]
struct Figures {
    target_bytes: u64,
    usage_bytes: u64,
    overhead_bytes: u64,
    health: Health,
}

fn run(images: &Images, without_balloon: Option<usize>) -> Result<()> {
    run_seeded(images, images.seed, without_balloon)
        .with_context(|| format!("BALLAST_STRESS_SEED={} repeats this run", images.seed))
}

fn run_seeded(images: &Images, seed: u64, without_balloon: Option<usize>) -> Result<()> {
    let host = Host::new()?;
    let killed_before = host_oom_kills()?;
    reserve(&host)?;
    let mut guests = boot(&host, images)?;
    if let Some(index) = without_balloon {
        guests[index].agent.call("rmmod-balloon", &[])?;
        wait::until(
            "the balancer knows that no driver serves the balloon",
            &host,
            || host.guest_object(GUESTS[index]),
            |guest| !guest.balloon.driver_ready,
        )?;
    }
    let samples = Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    let started = Instant::now();
    let (loaded, sampled) = scope(|scope| {
        let sampler = scope.spawn(|| sample_until(&over, &host, started, &samples));
        let loaded = load(&host, &mut guests, seed, without_balloon, started, &samples);
        over.store(true, Relaxed);
        (loaded, sampler.join().unwrap_or_else(|_| Err(anyhow!("the sampler panicked"))))
    });
    let slots = loaded?;
    sampled?;
    let samples = samples.into_inner().unwrap_or_else(PoisonError::into_inner);
    for Running { linux, agent } in &mut guests {
        let kills = agent.vmstat("oom_kill")?;
        ensure!(kills == 0, "{kills} programs in {} were killed", linux.guest.name);
        host.assert_near_kernel(&linux.guest)?;
    }
    ensure!(host_oom_kills()? == killed_before, "the host's kernel killed a process");
    print(&samples, &slots);
    // Without that guest there is room for two of the other three at once: memory has to move for the third only.
    moved(&slots, if without_balloon.is_some() { 1 } else { 2 })?;
    kept_apart(&host, &samples, without_balloon)
}

/// Leaves [`HOST_MIB`] of the host, and of that what the balancer keeps by itself.
fn reserve(host: &Host) -> Result<()> {
    let memory = host.host_object()?.memory;
    let (total, available) = (memory.total_bytes, memory.available_bytes);
    println!("overcommit: {} MiB of {} MiB are available", available / MIB, total / MIB);
    let own = u64::from(HOST_MIB) * MIB;
    if total > own {
        let reserve = available.saturating_sub(own - own / 8);
        let answer = host.request("PATCH", "/v1/policy", Some(&json!({ "reserve_bytes": reserve })))?;
        ensure!(answer.status == 200, "{answer:?}");
    }
    Ok(())
}

fn boot(host: &Host, images: &Images) -> Result<Vec<Running>> {
    let mut guests = Vec::new();
    for (index, name) in GUESTS.into_iter().enumerate() {
        let disk = host.path(&format!("{name}.img"));
        // Holes: the host holds nothing of it, the guest's page cache does.
        std::fs::File::create(&disk)?.set_len(READ_BYTES)?;
        let (disk, container) = (disk.display().to_string(), format!("/tenants/{name}"));
        let flags = ["--container", &container, "--container-limit", LIMIT, "--disk", &disk];
        // Kernels that report their stalls, and kernels that do not.
        let series = if index % 2 == 0 { "6.1" } else { "6.12" };
        let linux = Linux { series: Some(series), memory: RAM, flags: &flags, ..Linux::default() }
            .start(host, images, name)?;
        let agent = linux.agent()?;
        guests.push(Running { linux, agent });
    }
    Ok(guests)
}

/// Kills by the host's kernel since its boot.
fn host_oom_kills() -> Result<u64> {
    let vmstat = std::fs::read_to_string("/proc/vmstat")?;
    let line = vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).context("oom_kill in /proc/vmstat")
}

/// The result of a slot.
#[derive(Debug)]
struct Slot {
    from_s: f64,
    to_s: f64,
    heavy: usize,
    bytes: u64,
    /// Figures when it began, and when the heavy guest had all that it wanted.
    before: Vec<Figures>,
    after: Vec<Figures>,
}

/// Runs all slots.
fn load(
    host: &Host,
    guests: &mut [Running],
    seed: u64,
    without_balloon: Option<usize>,
    started: Instant,
    samples: &Mutex<Vec<Sample>>,
) -> Result<Vec<Slot>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut slots: Vec<Slot> = Vec::new();
    while slots.len() < SLOTS {
        let last = slots.last().map(|slot| slot.heavy);
        let plan = plan(&mut random, last, without_balloon);
        let heavy =
            plan.iter().position(|load| matches!(load, Load::Heavy { .. })).context("one is heavy")?;
        let (from_s, before) = (started.elapsed().as_secs_f64(), last_figures(host, samples)?);
        let after = Mutex::new(Vec::new());
        let results: Vec<Result<u64>> = scope(|scope| {
            let working: Vec<_> = guests
                .iter_mut()
                .zip(&plan)
                .map(|(guest, load)| {
                    let after = &after;
                    scope.spawn(move || work(host, guest, *load, samples, after))
                })
                .collect();
            working
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a load panicked"))))
                .collect()
        });
        let bytes: Vec<u64> = results
            .into_iter()
            .collect::<Result<_>>()
            .with_context(|| format!("slot {} from {from_s:.0} s on: {plan:?}", slots.len()))?;
        let after = after.into_inner().unwrap_or_else(PoisonError::into_inner);
        let to_s = started.elapsed().as_secs_f64();
        slots.push(Slot { from_s, to_s, heavy, bytes: bytes[heavy], before, after });
    }
    Ok(slots)
}

/// What each guest does: one is heavy, and not the same as last time; the others do what the seed says.
fn plan(random: &mut fastrand::Rng, last: Option<usize>, without_balloon: Option<usize>) -> Vec<Load> {
    let able = |index: &usize| Some(*index) != last && Some(*index) != without_balloon;
    let candidates: Vec<usize> = (0..GUESTS.len()).filter(able).collect();
    let heavy = candidates[random.usize(..candidates.len())];
    let steps = random.u64(HEAVY_STEPS);
    (0..GUESTS.len())
        .map(|index| {
            let (kind, seed) = (random.u64(..3), random.u64(..1 << 32));
            match kind {
                _ if index == heavy => Load::Heavy { bytes: steps * STEP_BYTES, seed },
                0 => Load::Read,
                1 => Load::Little { seed },
                _ => Load::Idle,
            }
        })
        .collect()
}

/// One guest's part of a slot. Returns what it held and compared, bytes.
fn work(
    host: &Host,
    guest: &mut Running,
    load: Load,
    samples: &Mutex<Vec<Sample>>,
    after: &Mutex<Vec<Figures>>,
) -> Result<u64> {
    let agent = &mut guest.agent;
    let mut held = Vec::new();
    match load {
        Load::Heavy { bytes, seed } => {
            for step in 0..bytes / STEP_BYTES {
                let name = format!("heavy{step}");
                agent.call("alloc", &[&name, &STEP_BYTES, &(seed + step)])?;
                held.push(name);
            }
        }
        Load::Read => {
            agent.call("read-file", &[&"/dev/vda"])?;
        }
        Load::Little { seed } => {
            agent.call("alloc", &[&"little", &LITTLE_BYTES, &seed])?;
            held.push("little".to_owned());
        }
        Load::Idle => {}
    }
    host.ticks(&guest.linux.guest.name, SLOT_TICKS)?;
    if matches!(load, Load::Heavy { .. }) {
        *after.lock().unwrap_or_else(PoisonError::into_inner) = last_figures(host, samples)?;
    }
    let mut bytes = 0;
    for name in held {
        let verified = agent.verify(&name)?;
        ensure!(verified.intact, "{}: {name}: {verified:?}", guest.linux.guest.name);
        bytes += agent.free(&name)?;
    }
    Ok(bytes)
}

fn last_figures(host: &Host, samples: &Mutex<Vec<Sample>>) -> Result<Vec<Figures>> {
    let samples = || samples.lock().unwrap_or_else(PoisonError::into_inner);
    wait::until(
        "a first sample",
        host,
        || Ok(samples().last().map(|sample| sample.guests.clone())),
        Option::is_some,
    )?
    .context("waited for")
}

/// Takes a sample each second until `over` is set.
fn sample_until(
    over: &AtomicBool,
    host: &Host,
    started: Instant,
    samples: &Mutex<Vec<Sample>>,
) -> Result<()> {
    while !over.load(Relaxed) {
        let sample = sample(host, started.elapsed().as_secs_f64())?;
        samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        sleep(SAMPLE_EVERY);
    }
    Ok(())
}

fn sample(host: &Host, at_s: f64) -> Result<Sample> {
    let (memory, guests) = (host.host_object()?, host.get::<Vec<GuestObject>>("/v1/guests")?);
    ensure!(guests.len() == GUESTS.len(), "{} guests are left", guests.len());
    let figures = |guest: &GuestObject| -> Result<Figures> {
        crate::host::assert_tiles(&guest.frames)?;
        Ok(Figures {
            target_bytes: guest.target_bytes,
            usage_bytes: guest.usage_bytes,
            overhead_bytes: guest.overhead_bytes,
            health: guest.health,
        })
    };
    ensure!(memory.frames_untiled == 0, "{memory:?}");
    Ok(Sample {
        at_s,
        guests: guests.iter().map(figures).collect::<Result<_>>()?,
        available_bytes: memory.memory.available_bytes,
        budget_bytes: memory.budget.context("a budget")?.bytes,
    })
}

/// One line a slot, and the extremes.
fn print(samples: &[Sample], slots: &[Slot]) {
    let mib = |of: fn(&Figures) -> u64, all: &[Figures]| -> String {
        let all: Vec<String> = all.iter().map(|figures| (of(figures) / MIB).to_string()).collect();
        all.join(" ")
    };
    for slot in slots {
        println!(
            "overcommit: {:3.0} to {:3.0} s: {} fills {} MiB; targets {} -> {} MiB, usage {} -> {} MiB",
            slot.from_s,
            slot.to_s,
            GUESTS[slot.heavy],
            slot.bytes / MIB,
            mib(|f| f.target_bytes, &slot.before),
            mib(|f| f.target_bytes, &slot.after),
            mib(|f| f.usage_bytes, &slot.before),
            mib(|f| f.usage_bytes, &slot.after),
        );
    }
    let least = samples.iter().map(|sample| sample.available_bytes).min().unwrap_or(0);
    let budgets = samples.iter().map(|sample| sample.budget_bytes / MIB);
    println!(
        "overcommit: {} samples in {:.0} s; at the least {} MiB were available; guests might hold {} to {} MiB",
        samples.len(),
        samples.last().map_or(0.0, |sample| sample.at_s),
        least / MIB,
        budgets.clone().min().unwrap_or(0),
        budgets.max().unwrap_or(0)
    );
}

/// What each heavy guest got more than it had, the others gave; `least` times at the least.
fn moved(slots: &[Slot], least: usize) -> Result<()> {
    let mut moves = 0;
    for slot in slots {
        let (own_before, own) = (&slot.before[slot.heavy], &slot.after[slot.heavy]);
        ensure!(own.usage_bytes >= slot.bytes, "it filled more than it is said to use: {slot:#?}");
        ensure!(
            own.target_bytes + own.overhead_bytes >= slot.bytes,
            "its target lags behind what it holds: {slot:#?}"
        );
        let gain = own.target_bytes.saturating_sub(own_before.target_bytes);
        let others = || (0..GUESTS.len()).filter(|index| *index != slot.heavy);
        let lent: u64 =
            others().map(|i| slot.before[i].target_bytes.saturating_sub(slot.after[i].target_bytes)).sum();
        if gain >= MOVED_BYTES && lent >= MOVED_BYTES {
            moves += 1;
        }
    }
    ensure!(moves >= least, "memory moved in {moves} of {} slots", slots.len());
    Ok(())
}

/// A guest without a balloon driver is marked, and no other guest ever is.
fn kept_apart(host: &Host, samples: &[Sample], without_balloon: Option<usize>) -> Result<()> {
    for (index, name) in GUESTS.into_iter().enumerate() {
        let bad = |figures: &Figures| !matches!(figures.health, Health::Well | Health::Slow);
        let marked = samples.iter().filter(|sample| bad(&sample.guests[index])).count();
        println!("overcommit: {name} was marked at {marked} of {} samples", samples.len());
        if Some(index) == without_balloon {
            ensure!(marked > 0, "{name} serves no balloon, and is not marked");
            let explained: Explanation = host.get(&format!("/v1/guests/{name}/explain"))?;
            println!("overcommit: {name}: {}", explained.reason);
        } else {
            ensure!(
                marked * 10 <= samples.len(),
                "{name} was disturbed: marked at {marked} of {} samples",
                samples.len()
            );
        }
    }
    Ok(())
}
