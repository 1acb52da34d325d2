//! Guests that charge others for what they touch.

use crate::support::{Daemon, MIB, Vmm, about, run_dir};
use protocol::message::{FromVmm, MAY_CHARGE_MAX, OWNERS_MAX, Register, ToVmm};

/// A guest that may charge what is in /tenants.
async fn guest(run_dir: &protocol::run_dir::RunDir) -> Vmm {
    let about =
        Register { may_charge: vec!["/tenants".parse().unwrap()], ..about("db", "/db", Some("400M")) };
    Vmm::register(run_dir, about).await.0
}

async fn tenants(daemon: &Daemon) {
    for tenant in ["x", "y"] {
        daemon.put(&format!("/v1/containers/tenants/{tenant}"), r#"{"max_bytes": 67108864}"#).await;
    }
    daemon.put("/v1/containers/other", "{}").await;
}

/// Asks as a guest does, and waits until it is granted and carried out, or for the reason why it is refused.
async fn ask(vmm: &Vmm, question: u64, to: Option<&str>) -> Result<(), String> {
    vmm.say(&FromVmm::AskCharge { question, to: to.map(|to| to.parse().unwrap()) }).await;
    loop {
        match vmm.hear().await {
            ToVmm::RefuseCharge { question: answered, reason } => {
                assert_eq!(answered, question);
                return Err(reason);
            }
            ToVmm::Charge(charge) => {
                assert_eq!((charge.question, charge.with_charges), (Some(question), false));
                assert_eq!(charge.charge_to.as_ref().map(|path| path.as_str()), to.filter(|to| *to != "/db"));
                vmm.table.set_owner(charge.owner);
                vmm.say(&FromVmm::Charged { order: charge.order, moved_frames: 0 }).await;
                return Ok(());
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_guest_serves_two_tenants_one_after_the_other_and_charges_follow() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    tenants(&daemon).await;
    let vmm = guest(&run_dir).await;
    vmm.touch(50 * MIB);
    for (question, to, at, mib) in [
        (1, Some("/tenants/x"), 50, 10),
        (2, Some("/tenants/y"), 60, 20),
        (3, Some("/tenants/x"), 80, 5),
        (4, None, 85, 15),
        (5, Some("/db"), 100, 1),
    ] {
        ask(&vmm, question, to).await.unwrap();
        vmm.touch_at(at * MIB, mib * MIB);
    }
    daemon
        .until_charged(&[("/tenants/x", 15), ("/tenants/y", 20), ("/tenants", 35), ("/db", 66), ("/", 101)])
        .await;
    let owners = daemon.owners("db").await;
    assert_eq!(owners.values().sum::<u64>(), 101 * 256);
    assert_eq!(daemon.guest("db").await.usage_bytes / MIB, 101);
    // Over REST as well; the operator may charge any container.
    let (guest, _) = tokio::join!(daemon.patch_guest("db", r#"{"charge_to": "/other"}"#), vmm.carry_out());
    assert_eq!((guest.charge_to, guest.container.as_str()), (Some("/other".parse().unwrap()), "/db"));
    vmm.touch_at(101 * MIB, 7 * MIB);
    daemon.until_charged(&[("/other", 7), ("/db", 66)]).await;
    let error = daemon.call(hyper::Method::DELETE, "/v1/containers/other", "").await.unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    let (guest, _) = tokio::join!(daemon.patch_guest("db", r#"{"charge_to": null}"#), vmm.carry_out());
    assert_eq!(guest.charge_to, None);
    // A container that goes leaves its bill to the guest's own.
    daemon.call(hyper::Method::DELETE, "/v1/containers/other", "").await.unwrap();
    daemon.until_charged(&[("/db", 73), ("/", 108)]).await;
}

#[tokio::test]
async fn a_guest_charges_only_containers_that_it_may_charge() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    tenants(&daemon).await;
    daemon.put("/v1/containers/db/sub", "{}").await;
    daemon.put("/v1/containers/tenantsx", "{}").await;
    let vmm = guest(&run_dir).await;
    for (question, to, word) in [
        (1, "/other", "may charge"),
        (2, "/", "may charge"),
        (3, "/tenantsx", "may charge"),
        (4, "/not-there", "may charge"),
        (5, "/tenants/none", "no such container"),
    ] {
        let reason = ask(&vmm, question, Some(to)).await.unwrap_err();
        assert!(reason.contains(word) && reason.contains(to), "{to}: {reason}");
    }
    ask(&vmm, 6, Some("/db/sub")).await.unwrap();
    ask(&vmm, 7, Some("/tenants")).await.unwrap();
    let events = daemon.events().await;
    let count = |kind: &str| events.iter().filter(|event| event.kind == kind).count();
    assert_eq!((count("charge_refused"), count("charge_changed")), (5, 2), "{events:#?}");
    // A guest that asks without end is cut short, and the others' events stay.
    let mut refused = 0;
    for question in 8..300 {
        refused += u32::from(ask(&vmm, question, None).await.is_err_and(|why| why.contains("Too many")));
    }
    assert!(refused > 100, "{refused}");
    assert_eq!(daemon.host().await.frames_untiled, 0);
}

#[tokio::test]
async fn the_limits_of_both_hold_for_a_guest_that_charges_a_tenant() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    tenants(&daemon).await;
    let vmm = guest(&run_dir).await;
    vmm.touch(100 * MIB);
    daemon.until_charged(&[("/db", 100)]).await;
    ask(&vmm, 1, Some("/tenants/x")).await.unwrap();
    // What it holds, and the 64M of the tenant.
    let reason = vmm.hear_target(164 * MIB).await;
    assert!(reason.contains("/tenants/x") && reason.contains("64M"), "{reason}");
    vmm.touch_at(100 * MIB, 40 * MIB);
    daemon.until_charged(&[("/tenants/x", 40)]).await;
    assert_eq!(daemon.guest("db").await.target_bytes, 164 * MIB);
    // A limit above the tenant counts as well, and is over: the guest gives the excess.
    daemon.patch_container("/tenants", r#"{"max_bytes": 31457280}"#).await;
    vmm.hear_target(130 * MIB).await;
    // No guest can charge a container that is full.
    let reason = ask(&vmm, 2, Some("/tenants/y")).await.unwrap_err();
    assert!(reason.contains("/tenants") && reason.contains("missing"), "{reason}");
    let problem = daemon.refused("/v1/guests/db", r#"{"charge_to": "/tenants/y"}"#).await;
    assert_eq!((problem.status, problem.field.as_deref()), (409, Some("charge_to")));
    let missing = format!("{} bytes are missing", 10 * MIB + 4096);
    assert!(problem.bound.as_ref().unwrap().contains(&missing), "{problem:?}");
    // It charges its own again: that the tenant is over its limit still is its matter.
    ask(&vmm, 3, None).await.unwrap();
    assert_eq!(daemon.guest("db").await.target_bytes, 130 * MIB);
    daemon.patch_container("/tenants", r#"{"max_bytes": 41943040}"#).await;
    vmm.hear_target(384 * MIB).await;
    daemon.owners("db").await;
}

#[tokio::test]
async fn registrations_that_charge_too_many_are_refused() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let many =
        Register { may_charge: vec!["/x".parse().unwrap(); MAY_CHARGE_MAX + 1], ..about("a", "/a", None) };
    let crowded = Register { owners: vec![7; OWNERS_MAX + 1], comes_back: true, ..about("a", "/a", None) };
    for (about, word) in [(many, "may_charge has 17"), (crowded, "owners has 1025")] {
        let vmm = Vmm::connect(&run_dir, about).await;
        let Some(ToVmm::Refused { reason }) = vmm.hear_any().await else { panic!("taken in") };
        assert!(reason.contains(word), "{reason}");
    }
    // The container that it charged is gone: it gets a charge command when it comes back, and `charge_to` of a first
    // registration is ignored.
    let gone =
        Register { charge_to: Some("/gone".parse().unwrap()), comes_back: true, ..about("a", "/a", None) };
    let vmm = Vmm::connect(&run_dir, gone).await;
    assert_eq!(vmm.carry_out().await.charge_to, None);
    daemon.put("/v1/containers/x", "{}").await;
    let first = Register { charge_to: Some("/x".parse().unwrap()), ..about("b", "/b", None) };
    let vmm = Vmm::connect(&run_dir, first).await;
    assert_eq!(vmm.carry_out().await.charge_to, None);
    assert_eq!(daemon.guest("b").await.charge_to, None);
}
