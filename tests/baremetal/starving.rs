//! What `oom_policy` and `--wait` do to guests without an operating system.

use super::{finish, start};
use anyhow::{Result, ensure};
use balancer::objects::RunState;
use e2e::starving::{self, Cast, moves, pausing, starve, until_state};
use e2e::{Guest, Host};
use rustix::process::Signal;

pub fn is_paused() -> Result<()> {
    let mut host = Host::without_balancer()?;
    pausing(&mut host)?;
    let mut guest = start(&host, "a", "keep 80", &[])?;
    let mut other = start(&host, "b", "keep 0", &[])?;
    guest.wait_for("touched")?;
    starving::is_paused(&mut host, &guest, |host| {
        moves(&other)?;
        ensure!(
            host.guest_object("b")?.state == RunState::Running,
            "a guest that holds no more than its target runs"
        );
        Ok(())
    })?;
    for guest in [&mut guest, &mut other] {
        leave(guest)?;
    }
    Ok(())
}

/// A signal ends a paused guest like any other.
pub fn ends_while_it_is_paused() -> Result<()> {
    let mut host = Host::without_balancer()?;
    pausing(&mut host)?;
    let mut guest = start(&host, "a", "keep 80", &["--cpus", "2"])?;
    guest.wait_for("touched")?;
    starve(&host, true)?;
    until_state(&host, "a", RunState::Paused)?;
    guest.signal(Signal::TERM)?;
    let status = guest.wait_end()?;
    ensure!(status.code() == Some(143), "{status}");
    Ok(())
}

fn leave(guest: &mut Guest) -> Result<()> {
    guest.type_keys("q")?;
    finish(guest)
}

pub fn waits() -> Result<()> {
    let start = |host: &Host, name: &str, flags: &[&str]| start(host, name, "keep 1", flags);
    starving::waits(Cast { start, up: "touched", leave })
}
