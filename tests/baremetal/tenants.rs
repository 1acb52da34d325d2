//! Which containers are charged: for a guest that serves tenants, and for guests that move.

use super::{MIB, finish, start};
use anyhow::{Context, Result, ensure};
use balancer::objects::{GuestObject, Problem};
use e2e::{Host, wait};
use serde_json::{Value, json};

/// Private frames of a guest that are charged to a container, by its table just now; tiling is checked frame by frame.
fn charged_frames(host: &Host, guest: &str, container: &str) -> Result<u64> {
    let owner = host.container(container)?.owner;
    let frames = host.audit(guest)?;
    ensure!(frames.from_entries.as_ref().is_some_and(|totals| totals.untiled == 0), "{frames:?}");
    let by_owner = frames.private_by_owner.as_ref().context("owners")?;
    let sum: u64 = by_owner.values().sum();
    ensure!(frames.totals.private == sum, "owners do not tile: {frames:?}");
    Ok(by_owner.get(&owner).copied().unwrap_or(0))
}

/// A container is charged so many frames, by its guest's table and by its usage.
fn ensure_charged(host: &Host, container: &str, frames: u64) -> Result<()> {
    let charged = charged_frames(host, "a", container)?;
    ensure!(charged.abs_diff(frames) * 100 <= frames, "{container}: {charged} frames, the truth is {frames}");
    println!("{container}: charged {charged} frames, the guest touched {frames}");
    wait::until("usage follows", &host, || host.container(container), |c| c.usage_bytes == charged * 4096)?;
    Ok(())
}

fn put(host: &Host, container: &str, limits: &Value) -> Result<()> {
    let answer = host.request("PUT", &format!("/v1/containers{container}"), Some(limits))?;
    ensure!(answer.status < 300, "{answer:?}");
    Ok(())
}

pub fn serves() -> Result<()> {
    let mut host = Host::new()?;
    for container in ["/tenants/x", "/tenants/y", "/other"] {
        put(&host, container, &json!({ "max_bytes": 64 * MIB }))?;
    }
    let flags = ["--container", "/db", "--may-charge", "/tenants"];
    let mut guest = start(&host, "a", "tenants", &flags)?;
    guest.wait_for("x=2560 y=1024")?;
    ensure_charged(&host, "/tenants/x", 2560)?;
    ensure_charged(&host, "/tenants/y", 1024)?;
    let db = charged_frames(&host, "a", "/db")?;
    ensure!((1536..1536 + 3 * 512).contains(&db), "its own, and its program: {db}");
    // The operator charges another container, and a balancer that is killed does not change that.
    let answer = host.request("PATCH", "/v1/guests/a", Some(&json!({ "charge_to": "/other" })))?;
    ensure!(answer.status == 200, "{answer:?}");
    let other = Some("/other".parse()?);
    ensure!(answer.read::<GuestObject>()?.charge_to == other);
    host.kill_balancer();
    host.start_balancer()?;
    wait::until("the guest registers again", &host, || Ok(host.guest_object("a").is_ok()), |there| *there)?;
    let back = host.guest_object("a")?;
    ensure!(back.charge_to == other && back.may_charge == ["/tenants".parse()?], "{back:?}");
    guest.type_keys("k")?;
    guest.wait_for("more=512")?;
    for (container, frames) in [("/other", 512), ("/tenants/x", 2560), ("/tenants/y", 1024)] {
        ensure_charged(&host, container, frames)?;
    }
    guest.type_keys("k")?;
    finish(&mut guest)
}

pub fn moves() -> Result<()> {
    for charges in ["move", "leave"] {
        let mut host = Host::new()?;
        put(&host, "/a", &json!({}))?;
        put(&host, "/b", &json!({ "max_bytes": 100 * MIB }))?;
        let mut guest = start(&host, "a", "touch-twice", &["--container", "/a"])?;
        guest.wait_for("touched=4096")?;
        let before = charged_frames(&host, "a", "/a")?;
        let output = host.balancer(&["move", "a", "/b", "--charges", charges, "--json"])?;
        ensure!(output.status.success(), "{output:?}");
        let moved: GuestObject = serde_json::from_slice(&output.stdout)?;
        ensure!(moved.container.as_str() == "/b" && !moved.charge_pending, "{moved:?}");
        ensure!(moved.target_bytes < 100 * MIB, "the target follows at once: {moved:?}");
        let (old, new) = if charges == "move" { (0, before) } else { (before, 0) };
        ensure!(charged_frames(&host, "a", "/a")? == old && charged_frames(&host, "a", "/b")? == new);
        // The move survives the balancer.
        host.kill_balancer();
        host.start_balancer()?;
        let container = || Ok(host.guest_object("a").map_or(String::new(), |guest| guest.container.into()));
        wait::until("the guest comes back to its container", &host, container, |path| *path == "/b")?;
        guest.type_keys("k")?;
        guest.wait_for("more=1024")?;
        ensure!(charged_frames(&host, "a", "/a")? == old);
        ensure!(charged_frames(&host, "a", "/b")? == new + 1024, "{charges}");
        guest.type_keys("k")?;
        finish(&mut guest)?;
    }
    Ok(())
}

pub fn refused_moves() -> Result<()> {
    let host = Host::new()?;
    put(&host, "/b", &json!({ "max_bytes": 8 * MIB }))?;
    let mut guest = start(&host, "a", "touch-twice", &["--container", "/a"])?;
    guest.wait_for("touched=4096")?;
    let before = charged_frames(&host, "a", "/a")?;
    let needed = host.container("/a")?.usage_bytes;
    ensure!(needed >= before * 4096, "{needed}");
    for charges in ["move", "leave"] {
        let body = json!({ "container": "/b", "charges": charges });
        let answer = host.request("PATCH", "/v1/guests/a", Some(&body))?;
        ensure!(answer.status == 409, "{answer:?}");
        let problem: Problem = answer.read()?;
        let (field, value) = (problem.field.as_deref(), problem.value.as_deref());
        ensure!((field, value) == (Some("container"), Some("/b")), "{problem:?}");
        let bound = problem.bound.context("a bound")?;
        ensure!(bound.contains("8388608") && bound.contains("are missing"), "{bound}");
    }
    let output = host.balancer(&["move", "a", "/b"])?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && errors.contains("bytes are missing"), "{errors}");
    ensure!(host.guest_object("a")?.container.as_str() == "/a");
    ensure!(charged_frames(&host, "a", "/a")? == before, "nothing changed");
    guest.type_keys("k")?;
    guest.wait_for("more=1024")?;
    guest.type_keys("k")?;
    finish(&mut guest)
}
