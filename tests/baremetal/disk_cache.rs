//! The host's page cache of a guest's disks: charged, and dropped where a limit needs the room.
//!
//! The disk is on the file system of the test program: what is on a tmpfs is page cache too, but cannot be dropped.

use super::{MIB, finish, start};
use anyhow::{Context, Result, ensure};
use balancer::objects::GuestObject;
use e2e::{Guest, Host, wait};
use std::fs;
use std::path::PathBuf;

/// statfs(2).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
/// What the guest moves, mebibytes.
const MOVED_MIB: u64 = 24;

/// A disk next to the test program, removed at the end.
struct Disk(PathBuf);

impl Disk {
    /// `None` where its pages could not be dropped, which it says.
    fn new(name: &str) -> Result<Option<Self>> {
        let exe = std::env::current_exe()?;
        let folder = exe.parent().context("a program is in a folder")?;
        if rustix::fs::statfs(folder)?.f_type == TMPFS_MAGIC {
            skip::skip!(ProgramsOnDisk, "{} is on a tmpfs, where pages stay", folder.display());
            return Ok(None);
        }
        let path = folder.join(format!("ballast-{name}-{}.img", std::process::id()));
        fs::File::create(&path)?.set_len(64 * MIB)?;
        Ok(Some(Self(path)))
    }

    fn flag(&self, option: &str) -> String {
        format!("{}{option}", self.0.display())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Waits until a guest's page cache is as wanted, and returns the guest.
fn until_cached(host: &Host, name: &str, what: &str, wanted: impl Fn(u64) -> bool) -> Result<GuestObject> {
    wait::until(what, host, || host.guest_object(name), |guest| wanted(guest.disk_cache_bytes))
}

/// The usage of a guest is all that the host holds for it, each part once.
fn ensure_sums_up(host: &Host, guest: &Guest) -> Result<()> {
    host.assert_near_kernel(guest)?;
    let read = || host.guest_object(&guest.name);
    let adds_up = |object: &GuestObject| {
        let (Some(resident), Some(page_tables)) = (object.resident_bytes, object.page_tables_bytes) else {
            return false;
        };
        let held = resident.max(object.frames.private * 4096);
        object.usage_bytes == held + page_tables + object.disk_cache_bytes
    };
    let object = wait::until("usage is the sum of its parts", &host, read, adds_up)?;
    // Heap, stacks and buffers of devices: what is resident and not guest RAM. It is assumed until it was measured.
    let resident = object.resident_bytes.context("its resident set")?;
    let own = resident.saturating_sub(object.frames.private * 4096);
    let slack = object.frames.error_frames_max * 4096 + MIB;
    ensure!(object.page_tables_bytes > Some(0) && own > 0, "{object:#?}");
    let near = |object: &GuestObject| object.overhead_bytes.abs_diff(own) <= slack;
    wait::until("the overhead is what is not guest RAM", &host, read, near)?;
    Ok(())
}

pub fn charged_and_dropped() -> Result<()> {
    let Some(disk) = Disk::new("charged")? else { return Ok(()) };
    let host = Host::new()?;
    let scenario = format!("disk {MOVED_MIB}");
    let flags = ["--container", "/web/a", "--container-limit", "160M", "--disk", &disk.flag("")];
    let mut guest = start(&host, "a", &scenario, &flags)?;
    guest.wait_for("moved=24")?;
    // What it wrote is there, dirty or not; the file's own blocks may be some more.
    let full = MOVED_MIB * MIB..(MOVED_MIB + 2) * MIB;
    let object = until_cached(&host, "a", "what was written is charged", |bytes| full.contains(&bytes))?;
    ensure!(
        object.disk_cache_error_bytes == 0 && object.disk_cache_age_ms.is_some_and(|age| age < 60_000),
        "{object:#?}"
    );
    ensure_sums_up(&host, &guest)?;
    let usage = host.guest_object("a")?.usage_bytes;
    // A limit that leaves room for 8 MiB of the cache, and for all that the guest holds.
    let max = usage - (MOVED_MIB - 8) * MIB;
    host.set_max("/web/a", max)?;
    let small = until_cached(&host, "a", "the cache is dropped", |bytes| bytes <= 9 * MIB)?;
    let container = wait::until(
        "the limit holds",
        &host,
        || host.container("/web/a"),
        |container| container.usage_bytes <= max,
    )?;
    println!(
        "cache {} -> {} bytes, usage {usage} -> {} under a limit of {max}",
        MOVED_MIB * MIB,
        small.disk_cache_bytes,
        container.usage_bytes
    );
    // Written again it is cached again, and goes again.
    guest.type_keys("w")?;
    wait::until(
        "it is written again",
        &host,
        || Ok(guest.console().matches("moved=24").count()),
        |n| *n == 2,
    )?;
    until_cached(&host, "a", "the cache is dropped again", |bytes| bytes <= 9 * MIB)?;
    guest.type_keys("q")?;
    finish(&mut guest)?;
    let bytes = fs::read(&disk.0)?;
    for at in (0..(MOVED_MIB * MIB) as usize).step_by(64 << 10) {
        ensure!(bytes[at..at + 8] != [0; 8], "what was dropped was written first: nothing at {at}");
    }
    Ok(())
}

pub fn shared() -> Result<()> {
    let Some(disk) = Disk::new("shared")? else { return Ok(()) };
    let host = Host::new()?;
    let flag = disk.flag(",ro");
    let scenario = format!("disk {MOVED_MIB}");
    let mut guests = Vec::new();
    for name in ["a", "b"] {
        let flags = ["--container", &format!("/web/{name}"), "--disk", &flag];
        let mut guest = start(&host, name, &scenario, &flags)?;
        guest.wait_for("moved=24")?;
        guests.push(guest);
    }
    let full = |bytes: u64| (MOVED_MIB * MIB..64 * MIB + 1).contains(&bytes);
    until_cached(&host, "a", "the first guest is charged", full)?;
    let held = |guest: &GuestObject| guest.disk_cache_held_bytes.is_some_and(full);
    let b = wait::until("the second one sees the same pages", &host, || host.guest_object("b"), held)?;
    ensure!(b.disk_cache_bytes < 2 * MIB, "{b:#?}");
    let mut first = guests.remove(0);
    first.type_keys("q")?;
    finish(&mut first)?;
    until_cached(&host, "b", "the guest that is left is charged", full)?;
    guests[0].type_keys("q")?;
    finish(&mut guests[0])
}
