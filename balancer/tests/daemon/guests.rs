//! Guests come, get their targets, and go.

use crate::support::{Daemon, MIB, Vmm, about, command, run_dir, send_with_fd, until};
use balancer::objects::{Detached, Event, FramesObject, OutOfMemoryState};
use policy::{Explanation, Health};
use protocol::engine::Engine;
use protocol::frames::{FrameTable, Region};
use protocol::message::{self, Balloon, FromVmm, PROTOCOL_VERSION, Statistics, ToVmm};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use wait::Activity;

/// Assumed for a `vmm` whose table was never compared with the kernel.
const OVERHEAD: u64 = 16 * MIB;

#[tokio::test]
async fn a_guest_is_told_its_limit_when_it_registers() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (vmm, target) = Vmm::register(&run_dir, about("a", "/web/a", Some("256M"))).await;
    assert_eq!(target, 256 * MIB - OVERHEAD);
    let container = daemon.container("/web/a").await;
    assert_eq!((container.limits.max_bytes, container.guests), (Some(256 * MIB), vec!["a".to_owned()]));
    let guest = daemon.guest("a").await;
    assert_eq!((guest.container.as_str(), guest.pid), ("/web/a", std::process::id().cast_signed()));
    drop(vmm);
    daemon.until_guests(<[_]>::is_empty).await;
    let paths = daemon.containers().await;
    assert_eq!(paths.len(), 2, "containers made for the guest are gone: {paths:#?}");
}

#[tokio::test]
async fn a_launch_that_changes_the_limits_of_an_existing_container_is_reported() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/web", r#"{"max_bytes": 134217728}"#).await;
    let (_same, _) = Vmm::register(&run_dir, about("same", "/web", Some("128M"))).await;
    let (_other, _) = Vmm::register(&run_dir, about("other", "/web", Some("max=1G,max-vcpus=4"))).await;
    let events = daemon.events().await;
    let changed: Vec<_> = events.iter().filter(|event| event.kind == "limits_changed").collect();
    assert_eq!(changed.len(), 1, "{changed:#?}");
    assert_eq!(changed[0].container.as_ref().unwrap().as_str(), "/web");
    let detail = &changed[0].detail;
    assert!(detail.starts_with("max=1G") && detail.ends_with("by the launch of guest other"), "{detail}");
}

/// Of a balancer whose ticks are a minute apart, the first one at its start: what arrived was not sent by a tick.
async fn assert_before_the_second_tick(daemon: &Daemon) {
    let age = daemon.host().await.balancer_age_ms;
    assert!(age < 60_000, "after {age} ms it may have been sent by a tick");
}

#[tokio::test]
async fn a_changed_limit_is_a_target_at_once() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--interval-ms", "60000"]).await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/web/a", Some("256M"))).await;
    let answer = daemon.patch_container("/web/a", r#"{"max_bytes": 134217728}"#).await;
    assert_eq!(answer.target_bytes, 128 * MIB - OVERHEAD);
    let reason = vmm.hear_target(128 * MIB - OVERHEAD).await;
    assert_before_the_second_tick(&daemon).await;
    assert!(reason.contains("/web/a") && reason.contains("128M"), "{reason}");
    daemon.patch_container("/web/a", r#"{"max_bytes": null}"#).await;
    vmm.hear_target(512 * MIB).await;
}

#[tokio::test]
async fn two_guests_share_memory_by_their_use() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (idle, _) = Vmm::register(&run_dir, about("idle", "/web", Some("512M"))).await;
    let (_busy, target) = Vmm::register(&run_dir, about("busy", "/web", None)).await;
    assert_eq!(target, 256 * MIB - OVERHEAD);
    let statistics = Statistics {
        total_memory_bytes: Some(500 * MIB),
        available_memory_bytes: Some(260 * MIB),
        ballooned_used_bytes: 200 * MIB,
        ..Default::default()
    };
    idle.say(&FromVmm::Statistics(statistics)).await;
    // 240M used by its word, of which 200M are in the balloon, and 64M of headroom for the one that says so, the rest
    // for the one that does not.
    daemon.until_guest("idle", |guest| guest.target_bytes == 104 * MIB).await;
    daemon.until_guest("busy", |guest| guest.target_bytes == (512 - 104 - 32) * MIB).await;
}

#[tokio::test]
async fn released_memory_reaches_a_waiting_guest_before_the_next_tick() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--interval-ms", "60000"]).await;
    let share = 256 * MIB - OVERHEAD;
    let balloon = |actual_bytes| {
        FromVmm::Balloon(Balloon { driver_ready: true, target_bytes: share, actual_bytes, oom_deflates: 0 })
    };
    let (first, target) = Vmm::register(&run_dir, about("first", "/web", Some("512M"))).await;
    first.say(&balloon(target)).await;
    daemon.until_guest("first", |guest| guest.balloon.driver_ready).await;
    let (late, waiting) = Vmm::register(&run_dir, about("late", "/web", None)).await;
    assert!(waiting < share, "{waiting} bytes are promised while the first one holds {target}");
    first.hear_target(share).await;
    first.say(&balloon(share)).await;
    late.hear_target(share).await;
    assert_before_the_second_tick(&daemon).await;
}

#[tokio::test]
async fn a_guest_out_of_memory_keeps_the_memory_that_it_took() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (vmm, target) = Vmm::register(&run_dir, about("a", "/a", Some("256M"))).await;
    let balloon =
        Balloon { driver_ready: true, target_bytes: target, actual_bytes: 300 * MIB, oom_deflates: 1 };
    vmm.say(&FromVmm::Balloon(balloon)).await;
    vmm.hear_target(300 * MIB).await;
    let events = daemon.events().await;
    assert!(events.iter().any(|event| event.kind == "out_of_memory"), "{events:#?}");
    assert_eq!(daemon.guest("a").await.out_of_memory, OutOfMemoryState::Holding);
}

#[tokio::test]
async fn frames_are_compared_when_a_client_wants_them_fresh() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    vmm.touch(100 * MIB);
    let answering = tokio::spawn(async move {
        while let Some(message) = vmm.hear_any().await {
            if message == ToVmm::Reconcile {
                vmm.reconcile().await;
            }
        }
    });
    let route = "/v1/guests/a/frames?max_age_ms=0&blocks=true&audit=true";
    let frames: FramesObject = daemon.client.get(route).await.unwrap();
    assert_eq!((frames.tiles, frames.totals.private), (true, 100 * MIB / 4096));
    assert_eq!(
        (frames.from_blocks.unwrap().private, frames.from_entries.unwrap().untiled),
        (100 * MIB / 4096, 0)
    );
    assert!(frames.totals.reconciled_age_ms.unwrap() < 5000);
    let guest = daemon.guest("a").await;
    assert!(guest.usage_bytes >= 100 * MIB, "the table's figure is the larger one");
    answering.abort();
}

#[tokio::test]
async fn guests_share_the_cpu_time_that_comparisons_may_take() {
    async fn share(vmm: &Vmm) -> u32 {
        loop {
            if let Some(ToVmm::ReconcileShare { cpu_ppm }) = vmm.hear_any().await {
                return cpu_ppm;
            }
        }
    }
    let (_dir, run_dir) = run_dir();
    let _daemon = Daemon::start(&run_dir).await;
    let (first, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    assert_eq!(share(&first).await, message::RECONCILE_CPU_PPM);
    let (second, _) = Vmm::register(&run_dir, about("b", "/b", None)).await;
    assert_eq!((share(&first).await, share(&second).await), (5000, 5000));
    drop(second);
    assert_eq!(share(&first).await, message::RECONCILE_CPU_PPM, "the share of who left is divided again");
}

#[tokio::test]
async fn a_vmm_that_does_not_compare_in_time_is_reported() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (_vmm, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
    let error = daemon.call(hyper::Method::GET, "/v1/guests/a/frames?max_age_ms=0", "").await.unwrap_err();
    assert!(error.to_string().contains("did not compare"), "{error}");
}

#[tokio::test]
async fn an_improper_guest_is_refused_with_the_reason() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let mut small = about("small", "/a", None);
    small.ram_bytes = 1024 * MIB;
    let on_machine = |engine, pid, attached| message::Register {
        engine,
        machine: Some(message::MachineProcess { pid, attached }),
        ..about("a", "/a", None)
    };
    let mut tall = about("tall", "/a", None);
    tall.floor_bytes = 600 * MIB;
    for (about, words) in [
        (
            message::Register { protocol_version: 99, ..about("a", "/a", None) },
            vec!["99", &PROTOCOL_VERSION.to_string()],
        ),
        (about("a", "/a", Some("32M")), vec!["/a", "64M", "32M"]),
        (about("a/b", "/a", None), vec!["a/b"]),
        (about("", "/a", None), vec!["name"]),
        (on_machine(Engine::Kvm, 1, false), vec!["machine", "kvm"]),
        (on_machine(Engine::Qemu, 1, false), vec!["machine is process 1", "not a child"]),
        (on_machine(Engine::Qemu, i32::MAX, true), vec!["machine is process 2147483647", "no such process"]),
        (small, vec!["frame table"]),
        (tall, vec!["floor_bytes", "629145600"]),
    ] {
        let table = FrameTable::new(&[Region::ram(0, 512 * MIB / 4096)]).unwrap();
        let vmm = Vmm::connect_with(&run_dir, about, table).await;
        let Some(ToVmm::Refused { reason }) = vmm.hear_any().await else { panic!("taken in") };
        for word in words {
            assert!(reason.contains(word), "{reason:?} does not say {word:?}");
        }
        assert_eq!(vmm.hear_any().await, None, "the socket closes");
    }
    assert!(daemon.guests().await.is_empty());
    assert_eq!(daemon.containers().await.len(), 2, "nothing is left of the refused");
}

#[tokio::test]
async fn a_message_that_is_not_a_registration_is_refused() {
    let (_dir, run_dir) = run_dir();
    let _daemon = Daemon::start(&run_dir).await;
    let good = message::encode(&FromVmm::Register(about("a", "/a", None))).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let engine = format!("\"engine\":\"{}\"", "x".repeat(9999));
    let unknown_engine = String::from_utf8(good.clone()).unwrap().replace("\"engine\":\"kvm\"", &engine);
    for (packet, word) in [
        (&b"lots"[..], "malformed"),
        (unknown_engine.as_bytes(), "must be kvm or qemu"),
        (&good[..good.len() - 2], "malformed"),
        (&vec![b' '; message::MESSAGE_BYTES_MAX + 1], "more than"),
        (&message::encode(&FromVmm::Ended { reason: "x".into() }).unwrap(), "must be a registration"),
        (&good, "sealed"),
    ] {
        let socket = tokio_seqpacket::UnixSeqpacket::connect(run_dir.guest_socket()).await.unwrap();
        send_with_fd(&socket, packet, null.as_fd()).await;
        let mut answer = vec![0; message::MESSAGE_BYTES_MAX];
        let length = socket.recv(&mut answer).await.unwrap().bytes_read();
        let text = String::from_utf8_lossy(&answer[..length]).to_string();
        assert!(text.contains("refused") && text.contains(word), "{text} does not say {word:?}");
    }
    // Without any descriptor.
    let socket = tokio_seqpacket::UnixSeqpacket::connect(run_dir.guest_socket()).await.unwrap();
    socket.send(&good).await.unwrap();
    let mut answer = vec![0; message::MESSAGE_BYTES_MAX];
    let length = socket.recv(&mut answer).await.unwrap().bytes_read();
    assert!(String::from_utf8_lossy(&answer[..length]).contains("without a frame table"));
}

#[tokio::test]
async fn a_guest_that_sends_messages_without_end_pushes_no_other_guest_out_of_the_events() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let ready = |driver_ready| FromVmm::Balloon(Balloon { driver_ready, ..Default::default() });
    let (quiet, _) = Vmm::register(&run_dir, about("quiet", "/quiet", None)).await;
    quiet.say(&ready(true)).await;
    daemon.until_event(|event| event.kind == "balloon_ready").await;
    let (loud, _) = Vmm::register(&run_dir, about("loud", "/loud", Some("256M"))).await;
    let heard = async |sequence: u64| {
        // Heard in order: what was said before is known when this is.
        loud.say(&FromVmm::Statistics(Statistics { sequence, ..Default::default() })).await;
        daemon
            .until_guest("loud", |guest| {
                guest.statistics.as_ref().is_some_and(|read| read.sequence == sequence)
            })
            .await;
    };
    // A driver that comes and goes, and a guest that is in need all the time.
    for count in 1..=3000 {
        loud.say(&ready(false)).await;
        loud.say(&ready(true)).await;
        let actual_bytes = (300 + count % 2 * 100) * MIB;
        let balloon = Balloon { driver_ready: true, actual_bytes, oom_deflates: count, ..Default::default() };
        loud.say(&FromVmm::Balloon(balloon)).await;
    }
    heard(1).await;
    // With its next event that is kept it is reported how many were not.
    let events = async || {
        loud.say(&ready(false)).await;
        loud.say(&ready(true)).await;
        daemon.events().await
    };
    let dropped = |events: &Vec<Event>| events.iter().any(|event| event.kind == "events_dropped");
    let events = until("dropped events are reported", daemon.activity(), events, dropped).await;
    assert!(events.len() < 1000, "{}", events.len());
    let of = |guest: &str, kind: &str| {
        events.iter().any(|event| event.guest.as_deref() == Some(guest) && event.kind == kind)
    };
    assert!(
        of("quiet", "balloon_ready") && of("loud", "events_dropped") && of("loud", "out_of_memory"),
        "{events:#?}"
    );
    assert_eq!(daemon.guest("loud").await.out_of_memory, OutOfMemoryState::Holding);
}

#[tokio::test]
async fn a_machine_that_stops_answering_is_shown_as_stuck_until_it_answers() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let pid = child.id().cast_signed();
    let machine = Some(message::MachineProcess { pid, attached: false });
    let (vmm, _) = Vmm::register(
        &run_dir,
        message::Register { engine: Engine::Qemu, machine, ..about("a", "/a", None) },
    )
    .await;
    let reason = "x".repeat(5000);
    for _ in 0..3 {
        vmm.say(&FromVmm::Stuck { reason: Some(reason.clone()) }).await;
    }
    let told = daemon.until_guest("a", |guest| guest.stuck.is_some()).await;
    assert_eq!(told.stuck.unwrap().len(), 400, "as much as is shown of it");
    assert_eq!((told.machine_pid, told.attached), (Some(pid), false));
    vmm.say(&FromVmm::Stuck { reason: None }).await;
    daemon.until_guest("a", |guest| guest.stuck.is_none()).await;
    let events = daemon.events().await;
    let of_kind = |kind: &str| events.iter().filter(|event| event.kind == kind).count();
    assert_eq!((of_kind("guest_stuck"), of_kind("guest_answers")), (1, 1));
    // It was started by its vmm: it cannot be detached.
    let answer = daemon.client.send(hyper::Method::DELETE, "/v1/guests/a", vec![]).await.unwrap();
    assert_eq!(answer.status(), 409);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn an_attached_guest_is_detached_when_its_helper_reports_it() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let machine = Some(message::MachineProcess { pid: std::process::id().cast_signed(), attached: true });
    let (vmm, _) = Vmm::register(
        &run_dir,
        message::Register { engine: Engine::Qemu, machine, ..about("a", "/a", None) },
    )
    .await;
    let helper = async {
        while vmm.hear().await != ToVmm::Detach {}
        vmm.say(&FromVmm::Ended { reason: "It was detached, as it was found".into() }).await;
    };
    let detach = command(&run_dir, &["detach", "a", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    helper.await;
    let left = detach.wait_with_output().unwrap().stdout;
    let left: Detached = serde_json::from_slice(&left).unwrap();
    assert_eq!((left.guest.as_str(), left.detail.as_str()), ("a", "It was detached, as it was found"));
    assert!(daemon.guests().await.is_empty());
}

#[tokio::test]
async fn a_guest_without_a_balloon_and_with_unseen_ram_is_shown_as_such() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let why = format!("it is a file {}", "x".repeat(5000));
    let plain = message::Register {
        has_balloon: false,
        ram_unseen: Some(why),
        ..about("plain", "/web/plain", Some("200M"))
    };
    let (vmm, _) = Vmm::register(&run_dir, plain).await;
    vmm.touch(300 * MIB);
    daemon.until_container("/web/plain", |container| container.usage_bytes > 300 * MIB).await;
    let guest = daemon.guest("plain").await;
    assert_eq!((guest.has_balloon, guest.health), (false, Health::WithoutBalloon));
    let unseen = guest.ram_unseen.unwrap();
    assert!(unseen.starts_with("it is a file") && unseen.len() == 400, "{unseen}");
    let frames: FramesObject = daemon.client.get("/v1/guests/plain/frames").await.unwrap();
    assert_eq!(frames.ram_unseen, Some(unseen));
    let events = daemon.events().await;
    for (kind, words) in
        [("without_balloon", "It has no balloon"), ("guest_registered", "unknown: it is a file")]
    {
        let told = events.iter().find(|event| event.kind == kind).unwrap();
        assert!(told.detail.contains(words), "{told:?}");
    }
    let said = |arguments: &[&str]| {
        String::from_utf8(command(&run_dir, arguments).output().unwrap().stdout).unwrap()
    };
    let ps = said(&["ps"]);
    assert!(ps.contains("plain has no balloon") && ps.contains("is unknown: it is a file"), "{ps}");
    let explained = said(&["explain", "plain"]);
    let limit = "cannot be made to release memory; /web/plain uses 30";
    assert!(
        explained.contains(limit) && explained.contains("its max, 200M, cannot be enforced"),
        "{explained}"
    );
    assert!(said(&["explain", "/web"]).contains(limit));
    // Of one that serves its balloon nothing is said.
    let (ready, _) = Vmm::register(&run_dir, about("ready", "/web/ready", None)).await;
    let explained: Explanation = daemon.client.get("/v1/guests/ready/explain").await.unwrap();
    assert!(explained.cannot_give.as_ref().unwrap().contains("until one does"), "{explained:#?}");
    let balloon = Balloon { driver_ready: true, actual_bytes: 512 * MIB, ..Default::default() };
    ready.say(&FromVmm::Balloon(balloon)).await;
    let gives = |explained: &Explanation| explained.cannot_give.is_none();
    daemon.until("/v1/guests/ready/explain", gives).await;
}

#[tokio::test]
async fn a_promise_that_cannot_be_kept_is_reported_once() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/web", r#"{"max_bytes": 104857600}"#).await;
    let vmm = Vmm::connect(&run_dir, about("b", "/web/b", Some("min=200M"))).await;
    let Some(ToVmm::Refused { reason }) = vmm.hear_any().await else { panic!("taken in") };
    assert_eq!(reason.matches("min_bytes is 209715200").count(), 1, "{reason}");
}

#[tokio::test]
async fn a_socket_of_any_name_can_be_attached_and_the_error_of_a_helper_is_shown() {
    let (dir, run_dir) = run_dir();
    let helper = dir.path().join("helper");
    std::fs::write(&helper, "#!/bin/sh\nprintf 'error: %s|' \"$@\" >&2\nprintf '\\n\\nFor more\\n' >&2\n")
        .unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o700)).unwrap();
    let client = balancer::client::Client::new(&run_dir.api_socket());
    let mut child =
        command(&run_dir, &["serve"]).env("BALLAST_VMM", &helper).stderr(Stdio::null()).spawn().unwrap();
    let up =
        async || client.call::<serde_json::Value>(hyper::Method::GET, "/v1/version", vec![]).await.is_ok();
    until("the balancer is up", &Activity::of(child.id()), up, |up| *up).await;
    let attach = |arguments: &[&str]| {
        let arguments = [&["attach", "--container", "/x", "--qmp"], arguments].concat();
        String::from_utf8(command(&run_dir, &arguments).output().unwrap().stderr).unwrap()
    };
    let told = attach(&["/x/ü x.qmp"]);
    assert!(told.contains("|error: --qmp=/x/ü x.qmp|error: --name=x|"), "{told}");
    assert!(!told.contains("For more"), "{told}");
    let told = attach(&["/x/--help.qmp", "--name=-v"]);
    assert!(told.contains("|error: --name=-v|") && told.contains("|error: --container=/x|"), "{told}");
    child.kill().unwrap();
    child.wait().unwrap();
}
