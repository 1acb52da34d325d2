//! Which containers are charged for a Linux guest: two tenants that it serves in turn, and containers that it moves
//! between.

use crate::host::Host;
use crate::linux::{Images, Linux};
use anyhow::{Context, Result, ensure};
use balancer::objects::{ContainerObject, GuestObject, Problem};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;
/// What a guest touches in addition to what it is asked to, and parts of host pages of 2 MiB.
const BLOCKS_APART: u64 = 8 * MIB;

fn put(host: &Host, container: &str, limits: &Value) -> Result<()> {
    let answer = host.request("PUT", &format!("/v1/containers{container}"), Some(limits))?;
    ensure!(answer.status < 300, "{answer:?}");
    Ok(())
}

/// Bytes of private frames by container, compared with the kernel just now; what tiles is checked frame by frame.
fn charges(host: &Host, guest: &str) -> Result<BTreeMap<String, u64>> {
    let frames = host.audit(guest)?;
    let containers: Vec<ContainerObject> = host.get("/v1/containers")?;
    let mut charged = BTreeMap::new();
    for (owner, frames) in frames.private_by_owner.context("owners")? {
        let container = containers.iter().find(|container| container.owner == owner);
        let path = container.context("an owner is a container")?.path.to_string();
        charged.insert(path, frames * 4096);
    }
    Ok(charged)
}

/// A figure is within a hundredth of the truth.
fn ensure_near(what: &str, bytes: u64, truth: u64) -> Result<()> {
    let off = bytes.abs_diff(truth);
    let permille = off * 1000 / truth;
    println!("{what}: charged {bytes} bytes, the truth is {truth} bytes, off by {permille} per mille");
    ensure!(off * 100 <= truth, "{what}: charged {bytes} bytes, the truth is {truth}: off by {off}");
    Ok(())
}

pub fn served_in_turn(images: &Images) -> Result<()> {
    let host = Host::new()?;
    for container in ["/tenants/x", "/tenants/y", "/other"] {
        put(&host, container, &json!({ "max_bytes": 400 * MIB }))?;
    }
    let flags = ["--container", "/db", "--may-charge", "/tenants"];
    let linux = Linux { memory: "1G", flags: &flags, ..Linux::default() }.start(&host, images, "a")?;
    let mut agent = linux.agent()?;
    // Memory of its own. It uses up what the guest touched while it booted and has free again.
    agent.alloc("own", 64 * MIB, 1)?;
    for to in ["/other", "/tenants/none", "tenants"] {
        let error = agent.call("charge", &[&to]).err().context("a charge that must be refused")?;
        println!("charge {to}: {error}");
    }
    // The host may back a frame that the guest's kernel touches by itself by a huge page: less than a hundredth of each
    // part.
    let mut truth = BTreeMap::new();
    for (index, (tenant, mib)) in
        [("/tenants/x", 160), ("/tenants/y", 256), ("/tenants/x", 96)].into_iter().enumerate()
    {
        agent.call("charge", &[&tenant])?;
        let held = agent.alloc(&format!("part{index}"), mib * MIB, index as u64)?;
        *truth.entry(tenant).or_insert(0) += held.bytes;
    }
    agent.call("charge", &[&"-"])?;
    agent.alloc("more", 16 * MIB, 9)?;
    let charged = charges(&host, "a")?;
    println!("charges: {charged:?}");
    for (tenant, bytes) in &truth {
        ensure_near(tenant, charged.get(*tenant).copied().unwrap_or(0), *bytes)?;
    }
    ensure!(!charged.contains_key("/other"));
    let usage = host.container("/tenants")?.usage_bytes;
    ensure_near("/tenants", usage, truth.values().sum())?;
    for part in 0..3 {
        ensure!(agent.verify(&format!("part{part}"))?.intact);
    }
    Ok(())
}

pub fn moved(images: &Images) -> Result<()> {
    let host = Host::new()?;
    for (container, max_mib) in [("/a", 500), ("/b", 450), ("/c", 480), ("/small", 100)] {
        put(&host, container, &json!({ "max_bytes": max_mib * MIB }))?;
    }
    let linux = Linux { flags: &["--container", "/a"], ..Linux::default() }.start(&host, images, "a")?;
    let mut agent = linux.agent()?;
    let first = agent.alloc("first", 128 * MIB, 1)?;
    // A move is refused by what is known, which may be a second old.
    let known = charges(&host, "a")?;
    ensure!(known.get("/a").is_some_and(|bytes| *bytes >= first.bytes), "{known:?}");
    let patch = |body: Value| host.request("PATCH", "/v1/guests/a", Some(&body));
    let answer = patch(json!({ "container": "/small" }))?;
    ensure!(answer.status == 409, "{answer:?}");
    let bound = answer.read::<Problem>()?.bound.context("a bound")?;
    ensure!(bound.contains("104857600") && bound.contains("missing"), "{bound}");
    println!("refused: {bound}");
    ensure!(host.guest_object("a")?.container.as_str() == "/a");

    let answer = patch(json!({ "container": "/b", "charges": "leave" }))?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(answer.read::<GuestObject>()?.container.as_str() == "/b");
    let at_move = charges(&host, "a")?;
    let second = agent.alloc("second", 96 * MIB, 2)?;
    let after = charges(&host, "a")?;
    println!("left: {at_move:?}, then {after:?}");
    let of = |charges: &BTreeMap<String, u64>, path: &str| charges.get(path).copied().unwrap_or(0);
    // The guest releases free memory as it likes, but not what a program holds; no more is charged to the container
    // that it left.
    let (left, before) = (of(&after, "/a"), of(&at_move, "/a"));
    ensure!(
        (first.bytes..=before).contains(&left),
        "/a, which it left, is charged {left}, {before} when it left"
    );
    // What was free and still charged to /a is used again; the unit of first touch is the host's page of 2 MiB.
    let (new, reused) = (of(&after, "/b"), before - first.bytes);
    let most = second.bytes + BLOCKS_APART;
    ensure!(
        new <= most && new + reused.min(BLOCKS_APART) >= second.bytes,
        "/b is charged {new} for {} of its own",
        second.bytes
    );

    let answer = patch(json!({ "container": "/c", "charges": "move" }))?;
    ensure!(answer.status == 200, "{answer:?}");
    ensure!(answer.read::<GuestObject>()?.container.as_str() == "/c");
    let after = charges(&host, "a")?;
    ensure!(after.len() == 1 && after.contains_key("/c"), "all of it moved: {after:?}");
    ensure!(agent.verify("first")?.intact && agent.verify("second")?.intact);
    Ok(())
}
