//! What `oom_policy` and `--wait` do to guests on a QEMU that their `vmm` starts.

use super::own::{MIB, linux};
use anyhow::{Result, ensure};
use e2e::starving::{self, Cast, pausing};
use e2e::{Guest, Host};
use guest_images::Agent;
use rustix::process::Signal;

pub fn waits() -> Result<()> {
    let start = |host: &Host, name: &str, flags: &[&str]| {
        linux(host, name, None, &[&["--memory", "256M"], flags].concat())
    };
    starving::waits(Cast { start, up: "BALLAST-GUEST ready", leave })
}

fn leave(guest: &mut Guest) -> Result<()> {
    guest.signal(Signal::TERM)?;
    let status = guest.wait_end()?;
    ensure!(status.code() == Some(143), "{status}");
    Ok(())
}

/// The guest has so much RAM that it is still giving what it has free when it is paused, and does not run out of
/// memory.
pub fn is_paused() -> Result<()> {
    let mut host = Host::without_balancer()?;
    pausing(&mut host)?;
    let channel = host.path("a.channel");
    let flags = ["--memory", "4G", "--container", "/a", "--channel", &channel.display().to_string()];
    let mut guest = linux(&host, "a", None, &flags)?;
    guest.wait_for("BALLAST-GUEST ready")?;
    let mut agent = Agent::connect(&channel, guest.activity().clone())?;
    agent.alloc("heap", 320 * MIB, 7)?;
    agent.start("turns", "while :; do echo turn= > /dev/console; sleep 0.1; done")?;
    starving::is_paused(&mut host, &guest, |_| Ok(()))?;
    ensure!(agent.verify("heap")?.intact);
    leave(&mut guest)
}
