//! Guests move from container to container.

use crate::support::{Daemon, MIB, Vmm, about, command, run_dir};
use balancer::objects::{ContainerObject, GuestObject};
use protocol::frames::State;
use protocol::message::FromVmm;
use serde_json::json;
use std::collections::BTreeMap;

const OVERHEAD: u64 = 16 * MIB;

async fn moved(daemon: &Daemon, vmm: &Vmm, body: &str) -> (GuestObject, protocol::message::Charge) {
    tokio::join!(daemon.patch_guest("a", body), vmm.carry_out())
}

#[tokio::test]
async fn a_guest_moves_with_its_charges_and_its_target_follows_at_once() {
    let (_dir, run_dir) = run_dir();
    // Turns are a minute apart: what is seen follows from the move.
    let daemon = Daemon::start_with(&run_dir, &["--interval-ms", "60000"]).await;
    daemon.put("/v1/containers/b", r#"{"max_bytes": 268435456}"#).await;
    let (vmm, target) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    assert_eq!(target, 512 * MIB);
    vmm.touch(100 * MIB);
    daemon.until_charged(&[("/a", 100), ("/b", 0)]).await;
    let (guest, charge) = moved(&daemon, &vmm, r#"{"container": "/b"}"#).await;
    assert_eq!((guest.container.as_str(), guest.charge_pending), ("/b", false));
    assert_eq!(guest.target_bytes, 256 * MIB - OVERHEAD);
    assert!(charge.with_charges && charge.container.as_str() == "/b" && charge.charge_to.is_none());
    vmm.hear_target(256 * MIB - OVERHEAD).await;
    // Once the move is answered the new container pays for everything, exactly.
    let container = daemon.container("/b").await;
    assert_eq!(container.usage_bytes / MIB, 100);
    assert_eq!(daemon.owners("a").await, BTreeMap::from([(container.owner, 100 * MIB / 4096)]));
    let containers = daemon.containers().await;
    assert!(
        containers.iter().all(|container| container.path.as_str() != "/a"),
        "created for the guest, and empty: {containers:#?}"
    );
    let events = daemon.events().await;
    let said = |kind: &str, word: &str| {
        let events = events.iter();
        events.filter(|event| event.kind == kind).any(|event| event.detail.contains(word))
    };
    assert!(said("guest_moved", "From /a, with") && said("charges_moved", "100M"), "{events:#?}");
}

#[tokio::test]
async fn memory_that_a_moved_guest_touched_stays_charged_to_the_old_container_until_the_guest_releases_it() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/b", "{}").await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    // More than this process holds, which the kernel counts as the guest's.
    vmm.touch(200 * MIB);
    let (_, charge) = moved(&daemon, &vmm, r#"{"container": "/b", "charges": "leave"}"#).await;
    assert_eq!((charge.with_charges, charge.owners.len()), (false, 2));
    vmm.touch_at(200 * MIB, 250 * MIB);
    daemon.until_charged(&[("/a", 200), ("/b", 250), ("/", 450)]).await;
    assert_eq!(daemon.owners("a").await.len(), 2);
    // As it gives back what it held, the old container is freed; it was made for the guest and goes with its last
    // frame.
    vmm.table.set(0, 160 * MIB / 4096, State::Ballooned);
    daemon.until_charged(&[("/a", 40), ("/b", 250)]).await;
    vmm.table.set(160 * MIB / 4096, 40 * MIB / 4096, State::Ballooned);
    let gone = |all: &Vec<ContainerObject>| all.iter().all(|container| container.path.as_str() != "/a");
    daemon.until("/v1/containers", gone).await;
    daemon.until_charged(&[("/b", 250), ("/", 250)]).await;
    assert_eq!(daemon.owners("a").await.len(), 1);
}

#[tokio::test]
async fn a_move_that_breaks_a_limit_is_refused_with_the_shortfall_and_changes_nothing() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/web/a", None)).await;
    let (other, _) = Vmm::register(&run_dir, about("other", "/full/other", None)).await;
    vmm.touch(100 * MIB);
    other.touch(150 * MIB);
    daemon.until_charged(&[("/web/a", 100), ("/full", 150)]).await;
    for (container, max_mib) in [("full", 200), ("small", 63), ("web", 128), ("web/b", 101), ("web/c", 99)] {
        daemon.call(hyper::Method::PUT, &format!("/v1/containers/{container}"), "{}").await.unwrap();
        daemon
            .patch(&format!("/v1/containers/{container}"), &json!({"max_bytes": max_mib * MIB}).to_string())
            .await;
    }
    let before = daemon.guest("a").await;
    for (body, field, value, words) in [
        // 150M are charged there, and 100M come: 50M are missing. The limit is the parent's.
        (r#"{"container": "/full/other"}"#, "container", "/full/other", vec!["/full", "209715200"]),
        // Without its charges it needs its floor: 64M.
        (
            r#"{"container": "/small", "charges": "leave"}"#,
            "container",
            "/small",
            vec!["1048576", "66060288"],
        ),
        (r#"{"container": "/web/c"}"#, "container", "/web/c", vec!["/web/c", "missing"]),
        (r#"{"container": "/none"}"#, "container", "/none", vec!["exists"]),
        (r#"{"container": "web"}"#, "container", "\"web\"", vec!["container path"]),
        (r#"{"container": "/web/b", "charges": "some"}"#, "charges", "\"some\"", vec!["move", "leave"]),
        (r#"{"charges": "leave"}"#, "charges", "leave", vec!["together with container"]),
        (r#"{"container": "/web/b", "charge_to": null}"#, "charge_to", "null", vec!["together"]),
        (r#"{"charge_to": "/none"}"#, "charge_to", "/none", vec!["exists"]),
        (r#"{"charge_to": 7}"#, "charge_to", "7", vec!["string"]),
        (r#"{"box": "/b"}"#, "box", "\"/b\"", vec!["container"]),
    ] {
        let problem = daemon.refused("/v1/guests/a", body).await;
        assert!([409, 422].contains(&problem.status), "{problem:?}");
        assert_eq!(
            (problem.field.as_deref(), problem.value.as_deref()),
            (Some(field), Some(value)),
            "{body}"
        );
        let bound = problem.bound.clone().unwrap();
        assert!(words.iter().all(|word| bound.contains(word)), "{body}: {bound} of {words:?}");
        if words.contains(&"209715200") {
            assert_eq!(missing(&bound) / MIB, 50, "{bound}");
        }
    }
    let problem = daemon.refused("/v1/guests/nobody", r#"{"container": "/web/b"}"#).await;
    assert_eq!(problem.status, 404);
    let after = daemon.guest("a").await;
    let charged = |guest: GuestObject| (guest.container, guest.owner, guest.charge_to, guest.charge_pending);
    assert_eq!(charged(before), charged(after));
    daemon.until_charged(&[("/web/a", 100), ("/full", 150)]).await;
    // The limit of /web holds before and after: there is room enough for what is inside it already.
    let (guest, _) = moved(&daemon, &vmm, r#"{"container": "/web/b"}"#).await;
    assert_eq!(guest.container.as_str(), "/web/b");
    daemon.until_charged(&[("/web/b", 100), ("/web", 100)]).await;
}

#[tokio::test]
async fn a_moved_guest_comes_back_to_its_new_container_after_a_restart() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/b", "{}").await;
    daemon.put("/v1/containers/x", "{}").await;
    let registration = about("a", "/a", Some("512M"));
    let (vmm, _) = Vmm::register(&run_dir, registration.clone()).await;
    vmm.touch(100 * MIB);
    moved(&daemon, &vmm, r#"{"container": "/b", "charges": "leave"}"#).await;
    let (_, charge) = moved(&daemon, &vmm, r#"{"charge_to": "/x"}"#).await;
    vmm.touch_at(100 * MIB, 200 * MIB);
    daemon.kill();
    while vmm.hear_any().await.is_some() {}

    let daemon = Daemon::start(&run_dir).await;
    let mut again = registration;
    again.comes_back = true;
    again.limits = None;
    again.container = charge.container;
    again.charge_to = charge.charge_to;
    again.owners = charge.owners;
    let vmm = Vmm::connect_with(&run_dir, again, vmm.table).await;
    let protocol::message::ToVmm::Registered { owner, .. } = vmm.hear().await else { panic!("not taken in") };
    let guest = daemon.guest("a").await;
    assert_eq!((guest.container.as_str(), guest.charge_to), ("/b", Some("/x".parse().unwrap())));
    assert_eq!(daemon.container("/x").await.owner, owner);
    assert_eq!(daemon.container("/a").await.limits.max_bytes, Some(512 * MIB));
    daemon.until_charged(&[("/a", 100), ("/b", 0), ("/x", 200)]).await;
    daemon.owners("a").await;
    moved(&daemon, &vmm, r#"{"container": "/x", "charges": "move"}"#).await;
    daemon.until_charged(&[("/b", 0), ("/x", 300), ("/", 300)]).await;
}

#[tokio::test]
async fn the_command_line_moves_a_guest() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/b", r#"{"max_bytes": 201326592}"#).await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    vmm.touch(208 * MIB);
    daemon.until_charged(&[("/a", 208)]).await;
    let run = |arguments: &'static [&'static str]| {
        let mut command = command(&run_dir, arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let output = run(&["move", "a", "/b"]).await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("max is 201326592") && missing(&text) / MIB == 16, "{text}");
    let (output, _) = tokio::join!(run(&["move", "a", "/b", "--charges", "leave"]), vmm.carry_out());
    let output = output.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("a: in /b, new frames are charged to it, target"), "{text}");
    let (output, _) = tokio::join!(run(&["charge", "a", "/a", "--json"]), vmm.carry_out());
    let guest: GuestObject = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!((guest.charge_to, guest.container.as_str()), (Some("/a".parse().unwrap()), "/b"));
    for (arguments, code) in [
        (&["move", "a"] as &[&str], 2),
        (&["move", "a", "b"], 2),
        (&["move", "a", "/b", "--charges", "some"], 2),
        (&["move", "nobody", "/b"], 1),
        (&["charge", "a", "b"], 2),
        (&["charge", "a", "/none"], 1),
    ] {
        let output = run(arguments).await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[tokio::test]
async fn a_vmm_that_does_not_confirm_a_charge_is_reported() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/b", "{}").await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    let guest = daemon.patch_guest("a", r#"{"container": "/b"}"#).await;
    assert_eq!((guest.container.as_str(), guest.charge_pending), ("/b", true));
    // A confirmation of a command that was never sent is ignored.
    vmm.say(&FromVmm::Charged { order: 99, moved_frames: u64::MAX }).await;
    vmm.say(&FromVmm::Charged { order: 0, moved_frames: 1 }).await;
    daemon.patch_guest("a", "{}").await;
    assert!(daemon.guest("a").await.charge_pending);
    vmm.carry_out().await;
    daemon.until_guest("a", |guest| !guest.charge_pending).await;
}

#[tokio::test]
async fn limits_on_objects_hold_for_a_guest_that_moves_in() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (_inside, _) = Vmm::register(&run_dir, about("inside", "/full/inside", None)).await;
    let (_vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    daemon.patch_container("/full", r#"{"max_guests": 1}"#).await;
    let problem = daemon.refused("/v1/guests/a", r#"{"container": "/full/inside"}"#).await;
    assert_eq!((problem.status, problem.field.as_deref()), (409, Some("max_guests")), "{problem:?}");
    assert!(problem.bound.clone().unwrap().contains("at least 2"), "{problem:?}");
    assert_eq!(daemon.guest("a").await.container.as_str(), "/a");
}

/// The bytes that a refusal names as missing. The page tables of this process are among them, some KiB.
fn missing(text: &str) -> u64 {
    let before = text.split(" are missing").next().unwrap().trim_end_matches(" bytes");
    before.rsplit(' ').next().unwrap().parse().unwrap()
}
