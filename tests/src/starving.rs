//! What `oom_policy` and `--wait` do to real guests, on every engine.

use crate::engine::Engine;
use crate::{Guest, Host, wait};
use anyhow::{Context, Result, ensure};
use balancer::objects::{GuestObject, RunState};
use rustix::process::Signal;
use serde_json::json;

/// Turns of its loop that a guest printed.
fn turns(guest: &Guest) -> usize {
    guest.console().matches("turn=").count()
}

/// The guest runs: it makes turns of its loop.
///
/// # Errors
/// When it does not.
pub fn moves(guest: &Guest) -> Result<()> {
    let before = turns(guest);
    wait::until("the guest runs", guest, || Ok(turns(guest)), |now| *now > before).map(drop)
}

/// A guest that makes turns and cannot release what it holds is paused while the host starves, and resumes when the
/// host starves no more, or when its balancer is killed. `meanwhile` is done while it is paused.
///
/// # Errors
/// When anything else happens.
pub fn is_paused(host: &mut Host, guest: &Guest, meanwhile: impl FnOnce(&Host) -> Result<()>) -> Result<()> {
    moves(guest)?;
    starve(host, true)?;
    let object = until_state(host, &guest.name, RunState::Paused)?;
    ensure!(object.stuck.is_none(), "it is paused, not stuck: {object:?}");
    ensure!(has_event(host, "host_starves")? && has_event(host, "paused")?);
    // A turn may be on its way to the console: it has stopped when a tick sees no more of them.
    let during_a_tick = || {
        let before = turns(guest);
        host.ticks(&guest.name, 1)?;
        Ok((before, turns(guest)))
    };
    let (_, before) = wait::until("no turn during a tick", guest, during_a_tick, |(from, to)| from == to)?;
    meanwhile(host)?;
    // Ticks are 100 ms apart ([`pausing`]), and so are the turns of the slowest of these guests.
    host.ticks(&guest.name, 10)?;
    ensure!(turns(guest) == before, "it made {} turns while it was paused", turns(guest) - before);
    starve(host, false)?;
    until_state(host, &guest.name, RunState::Running)?;
    moves(guest)?;
    ensure!(has_event(host, "resumed")?);
    starve(host, true)?;
    until_state(host, &guest.name, RunState::Paused)?;
    // Without a balancer nothing would ever resume it.
    host.kill_balancer();
    moves(guest)
}

/// A balancer that ticks often and pauses a guest when the host starves.
///
/// # Errors
/// When it does not start.
pub fn pausing(host: &mut Host) -> Result<()> {
    host.start_balancer_with(&["--interval-ms", "100", "--oom-policy", "pause"])
}

/// Sets the largest reserve, so that the host has less than a fourth of it, or the usual one.
///
/// # Errors
/// When the balancer refuses that.
pub fn starve(host: &Host, starves: bool) -> Result<()> {
    let reserve: Option<u64> = starves.then_some(64 << 40);
    let answer = host.request("PATCH", "/v1/policy", Some(&json!({ "reserve_bytes": reserve })))?;
    ensure!(answer.status == 200, "{answer:?}");
    Ok(())
}

/// Waits until REST says that a guest is in this state.
///
/// # Errors
/// When it does not get there.
pub fn until_state(host: &Host, guest: &str, state: RunState) -> Result<GuestObject> {
    let path = format!("/v1/guests/{guest}");
    // A balancer that just started does not know the guest yet.
    let look = || {
        let answer = host.request("GET", &path, None)?;
        if answer.status == 404 { Ok(None) } else { answer.read().map(Some) }
    };
    let is_there = |seen: &Option<GuestObject>| seen.as_ref().is_some_and(|guest| guest.state == state);
    wait::until("the guest's state", &host, look, is_there)?.context("waited for")
}

/// True if the balancer lists such an event.
fn has_event(host: &Host, kind: &str) -> Result<bool> {
    Ok(host.events()?.iter().any(|event| event.kind == kind))
}

/// What a limit has to leave next to the RAM of a new guest, on the engine that takes least.
const BESIDE_BYTES: u64 = 16 << 20;

/// How guests come and go.
#[derive(Clone, Copy)]
pub struct Cast {
    /// Starts a guest of a name with these flags.
    pub start: fn(&Host, &str, &[&str]) -> Result<Guest>,
    /// What its console shows when it is up.
    pub up: &'static str,
    /// Ends it.
    pub leave: fn(&mut Guest) -> Result<()>,
}

/// Room for one guest: a second one waits for it, is admitted, and does not have to wait again when the balancer is
/// killed.
///
/// # Errors
/// When anything else happens.
pub fn waits(cast: Cast) -> Result<()> {
    let mut host = Host::new()?;
    let start = |host: &Host, name: &str, flags: &[&str]| (cast.start)(host, name, flags);
    let in_second = ["--container", "/web/2", "--wait"];
    let answer = host.request("PUT", "/v1/containers/web", Some(&json!({})))?;
    ensure!(answer.status == 201, "{answer:?}");
    let mut first = start(&host, "first", &["--container", "/web/1", "--wait"])?;
    first.wait_for(cast.up)?;
    let about = host.guest_object("first")?;
    let engine = if about.engine == protocol::engine::Engine::Qemu { Engine::Qemu } else { Engine::Kvm };
    host.set_max("/web", engine.limit(about.floor_bytes + BESIDE_BYTES) * 3 / 2)?;
    let mut refused = start(&host, "refused", &["--container", "/web/2"])?;
    ensure!(refused.wait_end()?.code() == Some(5), "{}", refused.errors());
    let complaint = refused.errors();
    ensure!(complaint.contains("first") && complaint.contains("are missing"), "{complaint}");
    let mut late = start(&host, "late", &["--container", "/web/2", "--wait=1"])?;
    ensure!(late.wait_end()?.code() == Some(5), "{}", late.errors());
    ensure!(late.errors().contains("The wait for memory took too long"), "{}", late.errors());
    let mut interrupted = start(&host, "interrupted", &in_second)?;
    waiting(&host, 1)?;
    let shown = String::from_utf8(host.balancer(&["ps"])?.stdout)?;
    ensure!(shown.contains("interrupted waits for /web/2"), "{shown}");
    interrupted.signal(Signal::INT)?;
    ensure!(interrupted.wait_end()?.code() == Some(130), "{}", interrupted.errors());
    waiting(&host, 0)?;
    let mut second = start(&host, "second", &in_second)?;
    waiting(&host, 1)?;
    wait::until("it says so", &host, || Ok(second.errors()), |text| text.contains("are missing. Waiting"))?;
    ensure!(second.console().is_empty(), "it runs: {}", second.console());
    (cast.leave)(&mut first)?;
    second.wait_for(cast.up)?;
    ensure!(has_event(&host, "waiting")? && has_event(&host, "admitted")?);
    // The host has room for no further guest; but this one is there.
    starve(&host, true)?;
    let mut newcomer = start(&host, "newcomer", &["--container", "/db"])?;
    ensure!(newcomer.wait_end()?.code() == Some(5), "{}", newcomer.errors());
    host.kill_balancer();
    host.start_balancer()?;
    until_state(&host, "second", RunState::Running)?;
    ensure!(!has_event(&host, "waiting")?, "it waits although it runs: {}", second.errors());
    ensure!(!second.errors().contains("running guest a waiter"), "{}", second.errors());
    waiting(&host, 0)?;
    (cast.leave)(&mut second)
}

/// Waits until `count` guests wait.
fn waiting(host: &Host, count: usize) -> Result<()> {
    let look = || Ok(host.host_object()?.waiting.len());
    wait::until(&format!("{count} guests wait"), &host, look, |seen| *seen == count).map(drop)
}
