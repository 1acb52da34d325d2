//! The host's page cache of guests' disks: which container pays for it, and when it is to be dropped.

use crate::support::{Daemon, MIB, Vmm, about, run_dir};
use balancer::objects::GuestObject;
use protocol::disk::{CachedFile, FileId, KeepCached};
use protocol::message::{FromVmm, ToVmm};

/// What is charged is bounded by the page cache of the host that runs the test, which has more than this.
const CACHED: u64 = 24 * MIB;

const fn id(ino: u64) -> FileId {
    FileId { dev: 8, ino }
}

async fn tell(vmm: &Vmm, ino: u64, bytes: u64) {
    let file = CachedFile { file: id(ino), bytes, error_bytes: 0, stays: false };
    vmm.say(&FromVmm::DiskCache { files: vec![file], age_ms: 0 }).await;
}

/// Waits until a guest is charged so much for its disks.
async fn until_paid(daemon: &Daemon, guest: &str, bytes: u64) -> GuestObject {
    daemon.until_guest(guest, |guest| guest.disk_cache_bytes == bytes).await
}

/// The next order to drop something; targets that come before it are these.
async fn hear_drop(vmm: &Vmm, target: u64) -> Vec<KeepCached> {
    loop {
        match vmm.hear().await {
            ToVmm::DropDiskCache { files } => return files,
            ToVmm::Target { target_bytes, .. } => {
                assert_eq!(target_bytes, target, "no guest is asked for its cache")
            }
            other => panic!("{other:?}"),
        }
    }
}

/// True if no order comes at some ticks.
async fn hears_no_drop(daemon: &Daemon, vmm: &Vmm) -> bool {
    let order = async { while !matches!(vmm.hear().await, ToVmm::DropDiskCache { .. }) {} };
    tokio::select! {
        () = order => false,
        () = daemon.ticks(10) => true,
    }
}

#[tokio::test]
async fn each_system_charges_a_shared_disk_by_its_rule() {
    for (system, paid) in [("zones", [24, 0]), ("static", [24, 0]), ("partial", [12, 12]), ("rss", [0, 0])] {
        let (_dir, run_dir) = run_dir();
        let daemon = Daemon::start_with(&run_dir, &["--accounting", system]).await;
        let (a, _) = Vmm::register(&run_dir, about("a", "/a", None)).await;
        let (b, _) = Vmm::register(&run_dir, about("b", "/b", None)).await;
        assert_eq!(daemon.guest("a").await.disk_cache_held_bytes, None);
        // The second one reports first: the guest that registered first pays.
        tell(&b, 1, CACHED).await;
        tell(&a, 1, CACHED).await;
        for (guest, paid) in [("a", paid[0]), ("b", paid[1])] {
            daemon.until_guest(guest, |guest| guest.disk_cache_held_bytes == Some(CACHED)).await;
            let object = until_paid(&daemon, guest, paid * MIB).await;
            assert!(object.disk_cache_age_ms.unwrap() < 20_000, "{object:#?}");
        }
        // A guest's frames, its page tables and its disks, all of it its container's.
        a.touch(300 * MIB);
        let charged = if system == "rss" { 0 } else { 300 + paid[0] };
        let (least, most) = (charged * MIB, (charged + 2) * MIB);
        let is_right = |usage: u64| system == "rss" || (least..most).contains(&usage);
        let container = daemon.until_container("/a", |container| is_right(container.usage_bytes)).await;
        daemon.until_guest("a", |guest| is_right(guest.usage_bytes)).await;
        assert!(container.usage_age_ms.is_some(), "{container:#?}");
        // The first one leaves: the other has the file for itself.
        drop(a);
        until_paid(&daemon, "b", if system == "rss" { 0 } else { CACHED }).await;
    }
}

#[tokio::test]
async fn a_limit_has_cache_dropped_before_the_guest_is_asked_for_anything() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let (vmm, target) = Vmm::register(&run_dir, about("a", "/web/a", Some("320M"))).await;
    vmm.touch(300 * MIB);
    daemon.until_guest("a", |guest| guest.usage_bytes >= 300 * MIB).await;
    // It fits, but for what page tables take.
    tell(&vmm, 1, 18 * MIB).await;
    until_paid(&daemon, "a", 18 * MIB).await;
    assert!(hears_no_drop(&daemon, &vmm).await);
    tell(&vmm, 1, CACHED).await;
    let [kept] = hear_drop(&vmm, target).await[..] else { panic!("one file") };
    assert!(kept.file == id(1) && (19 * MIB..20 * MIB).contains(&kept.keep_bytes), "{kept:?}");
    // No second order before the first was answered.
    assert!(hears_no_drop(&daemon, &vmm).await);
    tell(&vmm, 1, kept.keep_bytes).await;
    until_paid(&daemon, "a", kept.keep_bytes).await;
    assert!(hears_no_drop(&daemon, &vmm).await);
    // A limit far above, of a container that all are inside, counts as well, as soon as it is set.
    daemon.patch_container("/", &format!("{{\"high_bytes\": {}}}", 310 * MIB)).await;
    loop {
        match vmm.hear().await {
            ToVmm::Target { target_bytes, .. } => {
                assert_eq!(target_bytes, target - 10 * MIB, "the limit's, not the cache's")
            }
            ToVmm::DropDiskCache { files } => {
                assert!((9 * MIB..10 * MIB).contains(&files[0].keep_bytes), "{files:?}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_cache_of_a_shared_disk_is_dropped_when_all_payers_exceed_their_limits() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--accounting", "partial"]).await;
    let (a, target) = Vmm::register(&run_dir, about("a", "/a", Some("310M"))).await;
    let (b, _) = Vmm::register(&run_dir, about("b", "/b", None)).await;
    for vmm in [&a, &b] {
        vmm.touch(300 * MIB);
        tell(vmm, 1, CACHED).await;
    }
    until_paid(&daemon, "a", CACHED / 2).await;
    daemon.until_container("/a", |object| object.usage_bytes > 310 * MIB).await;
    assert!(hears_no_drop(&daemon, &a).await, "b is within its limits and reads it too");
    daemon.patch_container("/b", &format!("{{\"max_bytes\": {}}}", 310 * MIB)).await;
    let [kept] = hear_drop(&a, target).await[..] else { panic!("one file") };
    assert!(
        (18 * MIB..20 * MIB).contains(&kept.keep_bytes),
        "half of what is dropped is each one's: {kept:?}"
    );
    assert!(hears_no_drop(&daemon, &b).await, "one of them is told");
}

#[tokio::test]
async fn a_vmm_that_lies_about_a_disk_pays_for_it_alone() {
    for (system, share) in [("static", CACHED), ("partial", CACHED / 2)] {
        let (_dir, run_dir) = run_dir();
        let daemon = Daemon::start_with(&run_dir, &["--accounting", system]).await;
        let (honest, _) = Vmm::register(&run_dir, about("honest", "/honest", None)).await;
        let (liar, _) = Vmm::register(&run_dir, about("liar", "/liar", Some("400M"))).await;
        tell(&honest, 1, CACHED).await;
        until_paid(&daemon, "honest", CACHED).await;
        let lie = |ino| CachedFile { file: id(ino), bytes: u64::MAX, error_bytes: u64::MAX, stays: true };
        liar.say(&FromVmm::DiskCache { files: (1..60).map(lie).collect(), age_ms: u64::MAX }).await;
        let object = daemon.until_guest("liar", |guest| guest.disk_cache_bytes > 0).await;
        let host = daemon.host().await;
        let most = host.memory.cached_bytes + host.memory.buffers_bytes;
        // The host's own figure moves between the two readings.
        assert!(object.disk_cache_bytes <= most + most / 4, "{object:#?} {host:#?}");
        assert_eq!(object.disk_cache_age_ms, Some(u64::MAX));
        assert_eq!(until_paid(&daemon, "honest", share).await.disk_cache_error_bytes, 0);
        assert!(hears_no_drop(&daemon, &honest).await);
        // It may take everything back.
        liar.say(&FromVmm::DiskCache { files: vec![], age_ms: 0 }).await;
        until_paid(&daemon, "honest", CACHED).await;
    }
}
