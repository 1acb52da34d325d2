//! Guests whose RAM the kernel merges. KSM is the host's, so these tests switch it on, and off again: one at a time,
//! and only where nothing else on the host uses it.

use super::{MIB, expect_code, finish, start, totals};
use anyhow::{Context, Result, ensure};
use balancer::objects::MergeObject;
use e2e::{Guest, Host, wait};
use std::path::Path;

#[allow(clippy::unwrap_used, dead_code, reason = "shared with other tests")]
#[path = "../../vmm/tests/support/ksm.rs"]
mod ksm;

const MIBS: u64 = 80;
const PAGES: u64 = MIBS * MIB / 4096;

fn merge(host: &Host, name: &str, container: &str) -> Result<Guest> {
    // Every frame has its number in it: the same in each guest, and no two alike in one.
    start(host, name, &format!("serve {MIBS}"), &["--merge", "--container", container])
}

fn refused(mut guest: Guest, code: i32, words: &[&str]) -> Result<()> {
    expect_code(&mut guest, code)?;
    let told = guest.errors();
    println!("{told}");
    for word in words {
        ensure!(told.contains(word), "{told:?} does not say {word:?}");
    }
    Ok(())
}

fn merged(host: &Host, name: &str) -> Result<Option<MergeObject>> {
    Ok(host.guest_object(name)?.merge)
}

/// Memory of this process that asks to be merged, as a stranger's would.
struct Stranger(*mut libc::c_void);

impl Stranger {
    const BYTES: usize = 4096;

    fn new() -> Result<Self> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping where the kernel likes; the result is checked.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), Self::BYTES, protection, flags, -1, 0) };
        ensure!(map != libc::MAP_FAILED, "no memory");
        // SAFETY: advice on the mapping just made.
        let advised = unsafe { libc::madvise(map, Self::BYTES, libc::MADV_MERGEABLE) };
        ensure!(advised == 0, "{}", std::io::Error::last_os_error());
        Ok(Self(map))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made.
        unsafe { libc::munmap(self.0, Self::BYTES) };
    }
}

pub fn merges() -> Result<()> {
    let host = Host::new()?;
    refused(
        start(&host, "alone", "hello", &["--merge", "--balancer", "none"])?,
        2,
        &["merge", "balancer is none"],
    )?;
    if !Path::new("/sys/kernel/mm/ksm").exists() {
        skip::skip!(Ksm, "guests cannot be merged: only the refusal is tested");
        return refused(merge(&host, "a", "/web/a")?, 5, &["This kernel has no KSM"]);
    }
    let ksm = match ksm::Ksm::start() {
        Ok(ksm) => ksm,
        Err(why) => {
            skip::skip!(Ksm, "guests cannot be merged: {why}");
            return Ok(());
        }
    };
    {
        let _stranger = Stranger::new()?;
        let own = std::process::id().to_string();
        refused(merge(&host, "a", "/web/a")?, 5, &["not guests of this balancer", &own])?;
    }
    let mut guests = vec![merge(&host, "a", "/web/a")?, merge(&host, "b", "/web/b")?];
    for guest in &mut guests {
        guest.wait_for(&format!("touched={PAGES}"))?;
    }
    refused(merge(&host, "c", "/db")?, 5, &["domain web", "domain db"])?;
    for name in ["a", "b"] {
        let object = wait::until(
            "the kernel merges what both guests hold",
            &host,
            || merged(&host, name),
            |merge| merge.as_ref().is_some_and(|merge| merge.merging_pages >= PAGES * 95 / 100),
        )?
        .context("waited for")?;
        println!("{name}: {object:?}");
        let profit = object.profit_bytes;
        let most = i64::try_from(MIBS * MIB)?;
        ensure!(profit > most / 2 && profit < 2 * most, "{object:?}");
        ensure!(object.cost_bytes >= PAGES * 64 * 95 / 100, "{object:?}");
        ensure!(object.age_ms < 30_000, "{object:?}");
    }
    // Merged or not, a frame is held: the tables stay true.
    for guest in &guests {
        host.assert_near_kernel(guest)?;
        let private = totals(&host, &guest.name)?.private;
        ensure!(private >= PAGES, "{private}");
    }
    // What a guest gives leaves KSM with it; every byte of the rest, and of the other guest, is as it was.
    host.set_max("/web/a", 70 * MIB)?;
    wait::until(
        "the guest releases memory",
        &host,
        || host.guest_object("a"),
        |guest| guest.actual_bytes == guest.target_bytes && guest.actual_bytes < 100 * MIB,
    )?;
    host.assert_near_kernel(&guests[0])?;
    let ballooned = totals(&host, "a")?.ballooned;
    let left = PAGES.saturating_sub(ballooned);
    wait::until(
        "what was given leaves KSM",
        &host,
        || merged(&host, "a"),
        |merge| merge.as_ref().is_some_and(|merge| merge.merging_pages <= left + PAGES / 20),
    )?;
    for guest in &mut guests {
        guest.type_keys("q")?;
        finish(guest)?;
    }
    drop(ksm);
    refused(merge(&host, "d", "/web/d")?, 5, &["run is 0", "Ballast does not switch it on by itself"])
}
