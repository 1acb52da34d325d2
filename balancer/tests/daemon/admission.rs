//! Which guests are admitted, which are refused, and which wait.

use crate::support::{Daemon, MIB, Vmm, about, run_dir};
use protocol::engine::Engine;
use protocol::message::{Balloon, FromVmm, MachineProcess, Register, Statistics, ToVmm};

fn waits(name: &str, container: &str) -> Register {
    Register { wait: true, ..about(name, container, None) }
}

async fn refused(vmm: &Vmm) -> String {
    match vmm.hear_any().await {
        Some(ToVmm::Refused { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

async fn waiting(vmm: &Vmm) -> String {
    match vmm.hear_any().await {
        Some(ToVmm::Waiting { reason }) => reason,
        other => panic!("it does not wait: {other:?}"),
    }
}

async fn taken_in(vmm: &Vmm) {
    match vmm.hear_any().await {
        Some(ToVmm::Registered { .. }) => {}
        other => panic!("not taken in: {other:?}"),
    }
}

async fn queue(daemon: &Daemon) -> Vec<String> {
    daemon.host().await.waiting.into_iter().map(|guest| guest.guest).collect()
}

#[tokio::test]
async fn waiters_are_admitted_in_their_order_when_other_guests_leave() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    // Room for the floors of two, 64M each, and for the 16M that each is assumed to take in addition to its RAM.
    daemon.put("/v1/containers/web", r#"{"max_bytes": 167772160}"#).await;
    let (first, _) = Vmm::register(&run_dir, about("first", "/web/1", None)).await;
    let (_second, _) = Vmm::register(&run_dir, about("second", "/web/2", None)).await;
    let reason = refused(&Vmm::connect(&run_dir, about("third", "/web/3", None)).await).await;
    for words in [
        "\"third\" needs 64M to start and 16M beside",
        "second 80M, first 80M",
        "max of /web is 160M",
        "80M are missing",
    ] {
        assert!(reason.contains(words), "{reason:?} does not say {words:?}");
    }
    let third = Vmm::connect(&run_dir, waits("third", "/web/3")).await;
    assert_eq!(waiting(&third).await, reason);
    let fourth = Vmm::connect(&run_dir, waits("fourth", "/web/4")).await;
    assert!(waiting(&fourth).await.contains("\"third\" waits for memory of /web and came first"));
    assert_eq!(queue(&daemon).await, ["third", "fourth"]);
    // Neither is anybody in the way elsewhere, nor does anybody go before them here.
    let (_elsewhere, _) = Vmm::register(&run_dir, about("elsewhere", "/db", None)).await;
    let reason = refused(&Vmm::connect(&run_dir, about("third", "/db", None)).await).await;
    assert!(reason.contains("waits for memory already"), "{reason}");
    drop(first);
    taken_in(&third).await;
    daemon.until_host(|host| host.waiting.len() == 1).await;
    let reason = refused(&Vmm::connect(&run_dir, about("fifth", "/web/5", None)).await).await;
    assert!(reason.contains("came first"), "{reason}");
    daemon.patch_container("/web", r#"{"max_bytes": 1073741824}"#).await;
    taken_in(&fourth).await;
    assert_eq!(queue(&daemon).await, Vec::<String>::new());
    let events = daemon.events().await;
    let of = |kind: &str| -> Vec<&str> {
        events.iter().filter(|event| event.kind == kind).filter_map(|event| event.guest.as_deref()).collect()
    };
    assert_eq!(of("waiting"), ["third", "fourth"]);
    assert_eq!(of("admitted"), ["third", "fourth"]);
}

#[tokio::test]
async fn a_waiter_that_hangs_up_leaves_the_queue_and_the_next_one_is_served() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/web", r#"{"max_bytes": 167772160}"#).await;
    let (_first, _) = Vmm::register(&run_dir, about("first", "/web/1", None)).await;
    let large = Register { floor_bytes: 128 * MIB, ..waits("large", "/web/2") };
    let large = Vmm::connect(&run_dir, large).await;
    waiting(&large).await;
    let small = Vmm::connect(&run_dir, waits("small", "/web/3")).await;
    waiting(&small).await;
    drop(large);
    taken_in(&small).await;
    let events = daemon.events().await;
    assert!(events.iter().any(|event| event.kind == "waiting_ended"), "{events:#?}");
}

#[tokio::test]
async fn a_newcomer_gets_neither_promised_nor_used_memory() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/web", r#"{"max_bytes": 419430400}"#).await;
    daemon.put("/v1/containers/web/kept", r#"{"min_bytes": 268435456}"#).await;
    let (user, _) = Vmm::register(&run_dir, about("user", "/web/user", None)).await;
    // 400M less 256M that are promised and 80M that the user needs to live.
    let big = Register { floor_bytes: 96 * MIB, ..about("big", "/web/big", None) };
    let reason = refused(&Vmm::connect(&run_dir, big.clone()).await).await;
    assert!(
        reason.contains("min of /web/kept 256M, user 80M") && reason.contains("48M are missing"),
        "{reason}"
    );
    // Inside what is promised there is room.
    let inside = Register { container: "/web/kept".parse().unwrap(), ..big };
    let (_inside, _) = Vmm::register(&run_dir, inside).await;
    daemon.patch_container("/web/kept", r#"{"min_bytes": 0}"#).await;
    // What a guest says that it uses counts as far as the host finds it there.
    user.touch(200 * MIB);
    let statistics = Statistics {
        total_memory_bytes: Some(500 * MIB),
        available_memory_bytes: Some(10 * MIB),
        sequence: 1,
        ..Default::default()
    };
    user.say(&FromVmm::Statistics(statistics)).await;
    daemon.until_guest("user", |guest| guest.used_bytes == Some(490 * MIB)).await;
    let reason = refused(
        &Vmm::connect(&run_dir, Register { floor_bytes: 128 * MIB, ..about("c", "/web/c", None) }).await,
    )
    .await;
    assert!(reason.contains("user 216M, inside") || reason.contains("user 216M, big"), "{reason}");
}

#[tokio::test]
async fn a_guest_that_comes_back_moves_to_its_share_from_its_last_target() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/legacy", r#"{"max_bytes": 367001600}"#).await;
    // It held what a balancer before this one left it, and is on its way to what that one asked for last.
    let balloon =
        Balloon { driver_ready: true, target_bytes: 320 * MIB, actual_bytes: 338 * MIB, oom_deflates: 0 };
    let back = Register { comes_back: true, balloon, ..about("back", "/legacy/back", None) };
    let (_back, target) = Vmm::register(&run_dir, back).await;
    assert!((320 * MIB..=350 * MIB).contains(&target), "{} MiB", target / MIB);
}

#[tokio::test]
async fn a_guest_on_qemu_needs_room_for_its_qemu_and_a_qemu_is_one_guest() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    daemon.put("/v1/containers/web", r#"{"max_bytes": 188743680}"#).await;
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let machine = Some(MachineProcess { pid: i32::try_from(child.id()).unwrap(), attached: false });
    let on_qemu =
        |name, container| Register { engine: Engine::Qemu, machine, ..about(name, container, None) };
    let reason = refused(&Vmm::connect(&run_dir, on_qemu("a", "/web")).await).await;
    assert!(
        reason.contains("\"a\" needs 64M to start and 128M beside its RAM")
            && reason.contains("12M are missing"),
        "{reason}"
    );
    let (_a, _) = Vmm::register(&run_dir, on_qemu("a", "/db")).await;
    let reason = refused(&Vmm::connect(&run_dir, on_qemu("b", "/db")).await).await;
    assert!(
        reason.contains(&format!("process {}", child.id())) && reason.contains("guest \"a\""),
        "{reason}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}
