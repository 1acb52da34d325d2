//! Limits on objects of the kernel: at launch, while guests run, after a crash.

use crate::support::{Daemon, Vmm, about, command, run_dir};
use hyper::Method;
use protocol::limits::Limits;
use protocol::message::{Register, ToVmm};
use serde_json::{Value, json};

fn with(name: &str, container: &str, cpus: u32) -> Register {
    Register { cpus, ..about(name, container, None) }
}

async fn refused(run_dir: &protocol::run_dir::RunDir, about: Register) -> String {
    let vmm = Vmm::connect(run_dir, about).await;
    match vmm.hear_any().await {
        Some(ToVmm::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

async fn put(daemon: &Daemon, path: &str, body: &Value) {
    daemon.call(Method::PUT, path, &body.to_string()).await.unwrap();
}

#[tokio::test]
async fn a_launch_beyond_a_limit_of_any_container_above_is_refused_with_the_numbers() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    put(&daemon, "/v1/containers/web", &json!({"max_vcpus": 4, "max_devices": 5})).await;
    let (_a, _) = Vmm::register(&run_dir, with("a", "/web/a", 3)).await;
    let reason = refused(&run_dir, with("b", "/web/b/c", 2)).await;
    for words in ["max_vcpus of /web is 4", "have 3", "\"b\" needs 2", "1 too many"] {
        assert!(reason.contains(words), "{reason:?} does not say {words:?}");
    }
    let reason = refused(&run_dir, Register { devices: 4, ..with("b", "/web/b", 1) }).await;
    assert!(reason.contains("max_devices of /web is 5") && reason.contains("1 too many"), "{reason}");
    let all = daemon.containers().await;
    assert_eq!(all.len(), 4, "nothing is left of the refused guest: {all:#?}");
    let (b, _) = Vmm::register(&run_dir, with("b", "/web/b", 1)).await;
    let web = daemon.container("/web").await;
    assert_eq!((web.objects.vcpus.used, web.objects.vcpus.max), (4, Some(4)));
    assert_eq!((web.objects.guests.used, web.objects.devices.used), (2, 4));
    assert_eq!(web.limits.max_vcpus, Some(4));
    // What a guest leaves is there for the next.
    drop(b);
    daemon.until_container("/web", |web| web.objects.vcpus.used == 3).await;
    Vmm::register(&run_dir, with("c", "/web/c", 1)).await;
}

#[tokio::test]
async fn a_launch_beyond_its_own_limits_is_refused() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    for (limits, words) in [
        ("512M,max-vcpus=0", "max_vcpus of /a is 0"),
        ("max-guests=0", "max_guests of /a is 0"),
        ("max-devices=1", "max_devices of /a is 1"),
        ("max-fds=29", "max_fds of /a is 29"),
        ("max-threads=3", "max_threads of /a is 3"),
    ] {
        let reason = refused(&run_dir, about("a", "/a", Some(limits))).await;
        assert!(reason.contains(words) && reason.contains("\"a\" needs"), "{limits}: {reason}");
    }
    assert_eq!(daemon.containers().await.len(), 2);
}

#[tokio::test]
async fn objects_that_cannot_be_reclaimed_are_not_limited_below_their_number() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (_a, _) = Vmm::register(&run_dir, with("a", "/web/a", 3)).await;
    let before = daemon.container("/web").await;
    for (body, words) in [
        (r#"{"max_vcpus": 2}"#, "max_vcpus is 2, but must be at least 3"),
        (r#"{"max_guests": 0}"#, "max_guests is 0, but must be at least 1"),
        (r#"{"max_devices": 1, "max_vcpus": 9}"#, "max_devices is 1, but must be at least 2"),
    ] {
        let error = daemon.call(Method::PATCH, "/v1/containers/web", body).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }
    let after = daemon.container("/web").await;
    assert_eq!((&before.limits, &after.limits), (&Limits::default(), &Limits::default()), "nothing changed");
    daemon.patch_container("/web", r#"{"max_vcpus": 3}"#).await;
    refused(&run_dir, with("b", "/web/b", 1)).await;
    let free = daemon.patch_container("/web", r#"{"max_vcpus": null}"#).await;
    assert_eq!((free.limits.max_vcpus, free.objects.vcpus.max), (None, None));
    Vmm::register(&run_dir, with("b", "/web/b", 1)).await;
}

#[tokio::test]
async fn descriptors_and_threads_beyond_a_limit_are_reported() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/web/a", None)).await;
    // This process is the vmm: it has some of both, and may have no threads at all from now on.
    let web = daemon.patch_container("/web", r#"{"max_threads": 0, "max_fds": 100000}"#).await;
    let (threads, fds) = (web.objects.threads, web.objects.fds);
    assert!(threads.used >= 4 && threads.exceeded, "{web:#?}");
    assert!(fds.used >= 30 && !fds.exceeded, "{web:#?}");
    daemon.until_container("/web", |web| web.objects.fds.age_ms.is_some()).await;
    let told = daemon.events_of("objects_exceeded").await;
    assert_eq!(told.len(), 1, "once, not each turn: {told:#?}");
    assert_eq!(told[0].container, Some("/web".parse().unwrap()));
    assert!(told[0].detail.contains("max_threads is 0"), "{told:#?}");
    // The vmm gets the number of descriptors that it may have, and the end of that limit.
    let told = async |wanted: fn(Option<u32>) -> bool| loop {
        if let Some(ToVmm::FdsMax { fds_max }) = vmm.hear_any().await
            && wanted(fds_max)
        {
            return;
        }
    };
    told(|fds_max| fds_max == Some(100_000)).await;
    daemon.patch_container("/web", r#"{"max_fds": null}"#).await;
    told(|fds_max| fds_max.is_none()).await;
}

#[tokio::test]
async fn limits_on_objects_survive_a_crash_and_are_set_and_shown_on_the_command_line() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let run = |arguments: &[&str]| {
        let output = command(&run_dir, arguments).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, out, err) = run(&["set", "/web", "--max-vcpus", "4", "--max-fds", "500", "--create"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("max-vcpus 4, max-fds 500"), "{out}");
    daemon.kill();
    let _daemon = Daemon::start(&run_dir).await;
    let (_a, _) = Vmm::register(&run_dir, with("a", "/web/a", 3)).await;
    let (_, out, _) = run(&["ps"]);
    assert!(out.contains("vcpus 3/4"), "{out}");
    let json: Value = serde_json::from_str(&run(&["ps", "--json"]).1).unwrap();
    let web = json["containers"].as_array().unwrap().iter().find(|web| web["path"] == "/web").unwrap();
    assert_eq!((&web["objects"]["vcpus"]["used"], &web["max_fds"]), (&json!(3), &json!(500)));
    let (code, _, err) = run(&["set", "/web", "--max-vcpus", "2"]);
    assert!(code == Some(1) && err.contains("must be at least 3"), "{err}");
    let (_, out, _) = run(&["set", "/web", "--max-vcpus", "none", "--json"]);
    assert!(out.contains("\"max_vcpus\": null"), "{out}");
}
