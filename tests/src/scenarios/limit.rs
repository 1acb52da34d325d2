//! Limits become balloon targets, and host memory follows.

use crate::host::Host;
use crate::linux::{Images, Linux, SOON};
use crate::wait;
use anyhow::{Context, Result, ensure};

const MIB: u64 = 1 << 20;

/// Frames in a state by the guest's table, bytes, compared with the kernel just now; tiling is checked on the way.
fn state_bytes(host: &Host, guest: &str, state: &str) -> Result<u64> {
    let frames = host.frames(guest)?;
    let totals = frames.get("totals").unwrap_or(&frames);
    Ok(totals[state].as_u64().context("a count of frames")? * 4096)
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
        SOON,
        || state_bytes(&host, "a", "ballooned"),
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
    let flags = ["--container", "/web/a", "--container-limit", "420M", "--disk", &disk];
    let linux = Linux { flags: &flags, ..Linux::default() }.start(&host, images, "a")?;
    let mut agent = linux.agent()?;
    let read = |agent: &mut guest_images::Agent| agent.call("read-file", &[&"/dev/vda"]);
    read(&mut agent)?;
    let before = linux.guest.resident_bytes()?;
    ensure!(before >= 330 * MIB, "the page cache fills the guest: {} MiB", before / MIB);
    host.set_max("/web/a", 200 * MIB)?;
    let after = wait::until("host memory falls", SOON, || linux.guest.resident_bytes(), |b| *b <= 200 * MIB)?;
    let asked = before - 200 * MIB;
    ensure!(before - after >= asked * 9 / 10, "fell by {} of {} MiB", (before - after) / MIB, asked / MIB);
    host.set_max("/web/a", 420 * MIB)?;
    wait::until("the balloon lets go", SOON, || state_bytes(&host, "a", "ballooned"), |b| *b <= 100 * MIB)?;
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
        "freed memory is back at the host",
        SOON,
        || linux.guest.resident_bytes(),
        |b| *b <= full - 180 * MIB,
    )?;
    ensure!(state_bytes(&host, "a", "reported")? >= 150 * MIB);
    Ok(())
}

pub fn without_agent(images: &Images) -> Result<()> {
    let host = Host::new()?;
    let flags = ["--container", "/web/a", "--container-limit", "400M"];
    let cmdline = "ballast.agent=off";
    let _linux = Linux { cmdline, flags: &flags, ..Linux::default() }.start(&host, images, "a")?;
    host.set_max("/web/a", 200 * MIB)?;
    wait::until(
        "the balloon takes what is above the limit",
        SOON,
        || state_bytes(&host, "a", "ballooned"),
        |b| *b >= 300 * MIB,
    )?;
    host.set_max("/web/a", 400 * MIB)?;
    wait::until("and lets it go", SOON, || state_bytes(&host, "a", "ballooned"), |b| *b <= 120 * MIB)?;
    Ok(())
}
