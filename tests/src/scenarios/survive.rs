//! No byte is lost and no program is killed.

use crate::engine::Engine;
use crate::host::Host;
use crate::linux::{Images, Linux};
use crate::wait;
use anyhow::{Result, ensure};
use guest_images::Agent;
use std::os::unix::fs::MetadataExt;

const MIB: u64 = 1 << 20;
/// By how much a guest may be off a limit: `vmm` takes 16 MiB of it, and QEMU some MiB more or less than assumed.
const OFF_BYTES: u64 = 24 * MIB;

/// Waits until the guest, whose limit leaves it 200M, holds no more than that.
fn in_force(host: &Host) -> Result<()> {
    wait::until(
        "the limit is in force",
        &host,
        || host.guest_object("a"),
        // What QEMU takes next to guest RAM differs by some MiB.
        |guest| guest.balloon.actual_bytes <= 212 * MIB,
    )?;
    Ok(())
}

pub fn out_of_memory(images: &Images) -> Result<()> {
    let host = Host::new()?;
    let limit = Engine::current().limit_mib(200);
    let flags = ["--container", "/web/a", "--container-limit", &limit];
    let linux = Linux { flags: &flags, ..Linux::default() }.start(&host, images, "a")?;
    let target = |host: &Host| Ok::<u64, anyhow::Error>(host.guest_object("a")?.balloon.target_bytes);
    in_force(&host)?;
    let before = target(&host)?;
    let mut agent = linux.agent()?;
    let kills = agent.vmstat("oom_kill")?;
    // More than the limit leaves, less than the guest's RAM: only the balloon can serve it.
    agent.alloc("heap", 220 * MIB, 3)?;
    ensure!(agent.vmstat("oom_kill")? == kills, "a program in the guest was killed");
    wait::until("the target follows", &host, || target(&host), |bytes| *bytes > before)?;
    let verified = agent.verify("heap")?;
    ensure!(verified.intact, "{verified:?}");
    Ok(())
}

pub fn contents(images: &Images) -> Result<()> {
    let host = Host::new()?;
    let engine = Engine::current();
    let limit = engine.limit_mib(480);
    let flags = ["--container", "/web/a", "--container-limit", &limit];
    let linux = Linux { flags: &flags, ..Linux::default() }.start(&host, images, "a")?;
    let mut agent = linux.agent()?;
    agent.alloc("heap", 96 * MIB, 11)?;
    for max in [220, 400, 240, 480] {
        host.set_max("/web/a", engine.limit(max * MIB))?;
        // The balloon has moved, by at least 160 MiB each time.
        wait::until(
            &format!("the balloon follows a limit of {max} MiB"),
            &host,
            || host.guest_object("a"),
            |guest| {
                let (actual, target) = (guest.actual_bytes, guest.target_bytes);
                actual.abs_diff(target) <= 2 * MIB && actual.abs_diff(max * MIB) <= OFF_BYTES
            },
        )?;
        host.frames("a")?;
        let verified = agent.verify("heap")?;
        ensure!(verified.intact, "at {max} MiB: {verified:?}");
    }
    Ok(())
}

pub fn disk(images: &Images) -> Result<()> {
    let host = Host::new()?;
    let image = host.path("disk.img");
    std::fs::File::create(&image)?.set_len(64 * MIB)?;
    let image = image.display().to_string();
    let limit = Engine::current().limit_mib(300);
    let flags = ["--container", "/web/a", "--container-limit", &limit, "--disk", &image];
    let written = {
        let mut linux = Linux { flags: &flags, ..Linux::default() }.start(&host, images, "a")?;
        let mut agent = linux.agent()?;
        let written = agent.write_disk("/dev/vda", 0, 32 * MIB, 5)?;
        host.set_max("/web/a", Engine::current().limit(200 * MIB))?;
        agent.power_off()?;
        linux.guest.wait_end()?;
        written
    };
    let linux = Linux { flags: &flags, ..Linux::default() }.start(&host, images, "b")?;
    let mut agent = linux.agent()?;
    let read = agent.read_disk("/dev/vda", 0, 32 * MIB)?;
    ensure!(read.checksum == written.checksum, "{read:?} {written:?}");
    clear(&mut agent, &image)
}

/// What the guest gives up of its disk, the host does not hold any more.
fn clear(agent: &mut Agent, image: &str) -> Result<()> {
    let held = || Ok::<_, anyhow::Error>(std::fs::metadata(image)?.blocks() * 512);
    let before = held()?;
    agent.call("clear-disk", &[&"/dev/vda", &(8 * MIB), &(16 * MIB)])?;
    let after = held()?;
    ensure!(before - after >= 15 * MIB, "{before} bytes, then {after}");
    let (cleared, unused) =
        (agent.read_disk("/dev/vda", 8 * MIB, 16 * MIB)?, agent.read_disk("/dev/vda", 40 * MIB, 16 * MIB)?);
    ensure!(cleared.checksum == unused.checksum, "{cleared:?} are not zeros");
    Ok(())
}

pub fn balancer_killed(images: &Images) -> Result<()> {
    let mut host = Host::new()?;
    let limit = Engine::current().limit_mib(300);
    let flags = ["--container", "/web/a", "--container-limit", &limit];
    let linux = Linux { flags: &flags, ..Linux::default() }.start(&host, images, "a")?;
    host.kill_balancer();
    let mut agent = linux.agent()?;
    agent.alloc("heap", 64 * MIB, 9)?;
    host.start_balancer()?;
    wait::until("the guest registers again", &host, || Ok(host.guest_object("a").is_ok()), |there| *there)?;
    host.set_max("/web/a", Engine::current().limit(200 * MIB))?;
    in_force(&host)?;
    ensure!(agent.verify("heap")?.intact);
    Ok(())
}
