//! Limits become balloon targets, and host memory follows.

use crate::engine::Engine;
use crate::host::Host;
use crate::linux::{Images, Linux};
use crate::wait;
use anyhow::{Context, Result, ensure};
use protocol::frames::Totals;

const MIB: u64 = 1 << 20;
/// Readings of a working set until it is that of what is touched now: the monitor finds its regions within 40 s, and is
/// read every 4 s.
const READINGS: usize = 10;

/// What is in the guest's balloon, bytes: by the table, which is compared with the kernel just now; on QEMU, where the
/// table only knows that such frames have no host memory, by QEMU's figure, and at most those. Tiling is checked on the
/// way.
fn ballooned_bytes(host: &Host, guest: &str) -> Result<u64> {
    if Engine::current() == Engine::Kvm {
        return state_bytes(host, guest, |totals| totals.ballooned);
    }
    let unknown = state_bytes(host, guest, |totals| totals.unknown)?;
    let guest = host.guest_object(guest)?;
    Ok((guest.ram_bytes - guest.actual_bytes).min(unknown))
}

/// Frames in a state by the guest's table, bytes, compared with the kernel just now; tiling is checked on the way.
fn state_bytes(host: &Host, guest: &str, state: fn(&Totals) -> u64) -> Result<u64> {
    Ok(state(&host.frames(guest)?.totals) * 4096)
}

pub fn holds_after_boot(images: &Images) -> Result<()> {
    let host = Host::new()?;
    let disk = host.path("disk.img");
    std::fs::File::create(&disk)?.set_len(400 * MIB)?;
    let disk = disk.display().to_string();
    let flags = ["--container", "/web/a", "--container-limit", "256M", "--disk", &disk];
    let linux = Linux { flags: &flags, ..Linux::default() }.start(&host, images, "a")?;
    wait::until(
        "the balloon holds what is above the limit",
        &host,
        || ballooned_bytes(&host, "a"),
        |b| *b >= 250 * MIB,
    )?;
    let mut agent = linux.agent()?;
    // The guest would use more than its limit: page cache of a file larger than that.
    agent.call("read-file", &[&"/dev/vda"])?;
    let resident = linux.guest.resident_bytes()?;
    ensure!(resident <= 256 * MIB, "vmm holds {} MiB", resident / MIB);
    Ok(())
}

pub fn moves_host_memory(images: &Images) -> Result<()> {
    let host = Host::new()?;
    let disk = host.path("disk.img");
    std::fs::File::create(&disk)?.set_len(320 * MIB)?;
    let disk = disk.display().to_string();
    let engine = Engine::current();
    let (high, low) = (engine.limit(420 * MIB), engine.limit(200 * MIB));
    let limit = engine.limit_mib(420);
    let flags = ["--container", "/web/a", "--container-limit", &limit, "--disk", &disk];
    let linux = Linux { flags: &flags, ..Linux::default() }.start(&host, images, "a")?;
    let mut agent = linux.agent()?;
    let read = |agent: &mut guest_images::Agent| agent.call("read-file", &[&"/dev/vda"]);
    // While the balloon inflates, the guest evicts more of its page cache than the balloon takes.
    wait::until(
        "the first limit is in force",
        &host,
        || host.guest_object("a"),
        |guest| guest.balloon.actual_bytes <= guest.target_bytes,
    )?;
    read(&mut agent)?;
    let before = linux.guest.resident_bytes()?;
    ensure!(before >= 330 * MIB, "the page cache fills the guest: {} MiB", before / MIB);
    host.set_max("/web/a", low)?;
    let after = wait::until("host memory falls", &host, || linux.guest.resident_bytes(), |b| *b <= low)?;
    let asked = before - low;
    ensure!(before - after >= asked * 9 / 10, "fell by {} of {} MiB", (before - after) / MIB, asked / MIB);
    host.set_max("/web/a", high)?;
    wait::until("the balloon deflates", &host, || ballooned_bytes(&host, "a"), |b| *b <= 100 * MIB)?;
    read(&mut agent)?;
    let again = linux.guest.resident_bytes()?;
    ensure!(again - after >= asked * 9 / 10, "rose by {} of {} MiB", (again - after) / MIB, asked / MIB);
    Ok(())
}

pub fn free_pages_come_back(images: &Images) -> Result<()> {
    let host = Host::new()?;
    let linux = Linux::default().start(&host, images, "a")?;
    let mut agent = linux.agent()?;
    agent.alloc("heap", 200 * MIB, 7)?;
    let full = linux.guest.resident_bytes()?;
    ensure!(full >= 200 * MIB, "{full}");
    agent.free("heap")?;
    wait::until(
        "freed memory is released to the host",
        &host,
        || linux.guest.resident_bytes(),
        |b| *b <= full - 180 * MIB,
    )?;
    match Engine::current() {
        Engine::Kvm => ensure!(state_bytes(&host, "a", |totals| totals.reported)? >= 150 * MIB),
        Engine::Qemu => {
            println!("on the engine qemu reported frames look like others without host memory")
        }
    }
    Ok(())
}

pub fn without_agent(images: &Images) -> Result<()> {
    let host = Host::new()?;
    let engine = Engine::current();
    let limit = engine.limit_mib(400);
    let flags = ["--container", "/web/a", "--container-limit", &limit];
    let cmdline = "ballast.agent=off";
    let _linux = Linux { cmdline, flags: &flags, ..Linux::default() }.start(&host, images, "a")?;
    host.set_max("/web/a", engine.limit(200 * MIB))?;
    wait::until(
        "the balloon takes what is above the limit",
        &host,
        || ballooned_bytes(&host, "a"),
        |b| *b >= 300 * MIB,
    )?;
    host.set_max("/web/a", engine.limit(400 * MIB))?;
    wait::until("and deflates again", &host, || ballooned_bytes(&host, "a"), |b| *b <= 120 * MIB)?;
    Ok(())
}

/// The working set that the kernel's data access monitor (DAMON) finds, next to what the guest does touch.
pub fn working_set(images: &Images) -> Result<()> {
    match std::fs::read_to_string("/sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds") {
        Ok(many) if many.trim() == "0" => {}
        Ok(many) => {
            skip::skip!(Damon, "another user of this host uses DAMON (nr_kdamonds is {})", many.trim());
            return Ok(());
        }
        Err(error) => {
            skip::skip!(Damon, "this host's kernel does not have DAMON ({error})");
            return Ok(());
        }
    }
    let mut host = Host::without_balancer()?;
    host.start_balancer_with(&["--working-sets"])?;
    let linux = Linux::default().start(&host, images, "a")?;
    let mut agent = linux.agent()?;
    agent.alloc("idle", 160 * MIB, 1)?;
    agent.alloc("small", 32 * MIB, 2)?;
    agent.alloc("large", 128 * MIB, 3)?;
    let settle = |agent: &mut guest_images::Agent, holds: &[&str]| -> Result<u64> {
        // The monitor reports the recent past, and finds its regions one after the other.
        let mut guest = host.guest_object("a")?;
        for _ in 0..READINGS {
            let mut age = 0;
            let look = || {
                for hold in holds {
                    agent.touch(hold)?;
                }
                let guest = host.guest_object("a")?;
                let now = guest.working_set_age_ms.unwrap_or(u64::MAX);
                // An age that falls is that of a new reading.
                Ok((now < std::mem::replace(&mut age, now), guest))
            };
            guest = wait::until("a reading of the working set", &host, look, |(is_new, _)| *is_new)?.1;
        }
        let text = std::fs::read_to_string(host.path("balancer.log")).unwrap_or_default();
        let why = text.lines().rfind(|line| line.contains("working sets")).unwrap_or_default().to_owned();
        guest.working_set_bytes.with_context(|| format!("a working set; {why}"))
    };
    let small = settle(&mut agent, &["small"])?;
    let large = settle(&mut agent, &["small", "large"])?;
    let used = host.guest_object("a")?.used_bytes.context("what it uses")?;
    println!(
        "working set: {} MiB when 32 are touched, {} MiB when 160 are; {} MiB are used",
        small / MIB,
        large / MIB,
        used / MIB
    );
    // In addition to what the agent touches there are the kernel and the agent itself; and the monitor samples.
    ensure!((24 * MIB..=used * 2 / 3).contains(&small), "{small} bytes when 32 MiB are touched");
    let more = large.saturating_sub(small);
    ensure!((64 * MIB..=192 * MIB).contains(&more), "{more} bytes more when 128 MiB more are touched");
    ensure!(small < used && large < used, "memory that is held and not used is not in it");
    Ok(())
}
