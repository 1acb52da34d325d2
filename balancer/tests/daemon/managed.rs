//! Images that the balancer fills: vmms without a guest ask for granules over the guest socket, honestly and not.

use crate::support::pool::{Folder, Mapped, guest, guest_with};
use crate::support::{Daemon, MIB, answered, run_dir};
use balancer::objects::PoolObject;
use protocol::image::{Backing, GRANULE_BYTES, GRANULES_ASKED_MAX, ImageHandle};
use protocol::message::{self, FromVmm, GranuleOutcome, PROTOCOL_VERSION, ServePool, ToVmm};
use protocol::run_dir::RunDir;
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::OwnedAncillaryMessage;

/// The second connection of a guest.
struct Faults {
    socket: UnixSeqpacket,
    images: Vec<(ImageHandle, File)>,
}

async fn serve(run_dir: &RunDir, name: &str) -> Result<Faults, String> {
    let socket = UnixSeqpacket::connect(run_dir.guest_socket()).await.unwrap();
    let asked = ServePool { protocol_version: PROTOCOL_VERSION, guest: name.into() };
    socket.send(&message::encode(&FromVmm::ServePool(asked)).unwrap()).await.unwrap();
    let (mut packet, mut ancillary) = (vec![0; message::MESSAGE_BYTES_MAX], [0; 512]);
    let heard = socket.recv_with_ancillary(&mut packet, &mut ancillary);
    let (info, reader) = answered(&socket, heard).await.unwrap();
    let mut files = vec![];
    for message in reader.into_messages() {
        if let OwnedAncillaryMessage::FileDescriptors(fds) = message {
            files.extend(fds.map(File::from));
        }
    }
    match message::decode(&packet[..info.bytes_read()]).unwrap() {
        ToVmm::Images { images } => Ok(Faults { images: images.into_iter().zip(files).collect(), socket }),
        ToVmm::Refused { reason } => Err(reason),
        other => panic!("{other:?}"),
    }
}

impl Faults {
    async fn say(&self, message: &FromVmm) {
        self.socket.send(&message::encode(message).unwrap()).await.unwrap();
    }

    /// The next message; `None` at the hang-up.
    async fn hear(&self) -> Option<ToVmm> {
        let mut packet = vec![0; message::MESSAGE_BYTES_MAX];
        let heard = answered(&self.socket, self.socket.recv(&mut packet)).await;
        let count = heard.map_or(0, |info| info.bytes_read());
        (count > 0).then(|| message::decode(&packet[..count]).unwrap())
    }

    async fn ask(&self, first: u64, count: u64) {
        self.say(&FromVmm::AskGranules { image: 0, first, count }).await;
    }

    /// Asks for granules and unmaps those that it is asked to unmap, until all came. Returns the unmapped ones.
    async fn fetch(&self, granules: std::ops::Range<u64>) -> Vec<u64> {
        let mut wanted_back = vec![];
        for granule in granules {
            self.ask(granule, 1).await;
            loop {
                match self.hear().await.expect("cut off") {
                    ToVmm::Granules { image: 0, first, count: 1, outcome: GranuleOutcome::There } => {
                        assert_eq!(first, granule);
                        break;
                    }
                    ToVmm::Unmap { image, first, count } => {
                        wanted_back.extend(first..first + count);
                        self.say(&FromVmm::Unmapped { image, first, count }).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        wanted_back
    }

    fn byte(&self, at: u64) -> u8 {
        let mut byte = [0];
        self.images[0].1.read_exact_at(&mut byte, at).unwrap();
        byte[0]
    }
}

struct Host {
    folder: Folder,
    image: protocol::image::Digest,
    _dir: tempfile::TempDir,
    run_dir: RunDir,
    daemon: Daemon,
}

async fn host(max: u64) -> Host {
    let folder = Folder::new();
    let image = folder.build("tree", 7);
    let (dir, run_dir) = run_dir();
    let daemon = Daemon::start_with(&run_dir, &["--store", folder.store(), "--pool", "managed"]).await;
    daemon.patch_container("/common", &format!("{{\"max_bytes\": {max}}}")).await;
    Host { folder, image, _dir: dir, run_dir, daemon }
}

impl Host {
    async fn guest(&self, name: &str, container: &str) -> (Mapped, Faults) {
        let mapped = guest(&self.run_dir, name, container, &[&self.image]).await;
        (mapped, serve(&self.run_dir, name).await.unwrap())
    }

    async fn pool(&self) -> PoolObject {
        let pool = self.daemon.pool().await;
        assert_eq!(pool.charged_bytes, pool.resident_bytes, "{pool:#?}");
        assert_eq!((pool.uncharged_frames, pool.error_bytes), (0, 0));
        pool
    }

    async fn held(&self, guest: &str) -> u64 {
        let pool = self.pool().await;
        pool.guests.iter().find(|row| row.guest == guest).map_or(0, |row| row.alone_bytes) / GRANULE_BYTES
    }

    fn bytes(&self, domain: &str) -> Vec<u8> {
        std::fs::read(self.folder.copy(&self.image, domain)).unwrap()
    }
}

#[tokio::test]
async fn granules_hold_the_bytes_of_the_image_and_are_charged_to_the_first_guest_that_asked() {
    let host = host(4 * MIB).await;
    let (_one, one) = host.guest("one", "/web/a").await;
    let (_two, two) = host.guest("two", "/web/b").await;
    assert_eq!(one.images[0].0.backing, Backing::Managed);
    let inode = |faults: &Faults| faults.images[0].1.metadata().unwrap().ino();
    assert_eq!(inode(&one), inode(&two), "one memory for both");
    // The second to register is the first to ask.
    assert!(two.fetch(2..5).await.is_empty() && one.fetch(4..6).await.is_empty());
    let bytes = host.bytes("web");
    for at in [2 * GRANULE_BYTES, 3 * GRANULE_BYTES + 77, 6 * GRANULE_BYTES - 1] {
        assert_eq!(one.byte(at), bytes[usize::try_from(at).unwrap()]);
    }
    let pool = host.pool().await;
    assert_eq!(pool.resident_bytes, 4 * GRANULE_BYTES);
    assert_eq!(pool.saved_bytes, GRANULE_BYTES);
    let charged =
        |path: &str| pool.containers.iter().find(|row| row.container.as_str() == path).unwrap().charged_bytes;
    assert_eq!((charged("/web/a"), charged("/web/b")), (GRANULE_BYTES, 3 * GRANULE_BYTES));
    assert!(one.images[0].1.write_at(b"x", 0).is_err(), "for reading alone");
}

#[tokio::test]
async fn a_guest_that_reads_everything_stays_inside_the_budget_and_unmaps_its_own_granules() {
    let host = host(MIB).await;
    let (_other, other) = host.guest("other", "/web").await;
    other.fetch(0..8).await;
    let (_evil, evil) = host.guest("evil", "/evil").await;
    for round in 0..3 {
        let wanted_back = evil.fetch(0..32).await;
        assert!(wanted_back.len() >= 24 || round > 0);
        assert_eq!((host.held("other").await, host.held("evil").await), (8, 8));
        assert!(host.pool().await.resident_bytes <= MIB);
    }
    // The other one was asked for nothing: what it is sent first is the answer to its own question.
    other.ask(0, 1).await;
    let first = other.hear().await;
    assert!(matches!(first, Some(ToVmm::Granules { .. })), "{first:?}");
    // What comes back is the same.
    let bytes = host.bytes("evil");
    evil.fetch(3..4).await;
    assert_eq!(evil.byte(3 * GRANULE_BYTES + 5), bytes[usize::try_from(3 * GRANULE_BYTES + 5).unwrap()]);
}

#[tokio::test]
async fn a_budget_may_fall_below_the_mapped_granules_but_not_below_the_needed_ones() {
    let host = host(4 * MIB).await;
    let (_one, one) = host.guest("one", "/web").await;
    one.fetch(0..48).await;
    assert_eq!(host.held("one").await, 48);
    let common = "/v1/containers/common";
    let problem = host.daemon.refused(common, &json!({"max_bytes": MIB - 1}).to_string()).await;
    assert_eq!((problem.status, problem.field.as_deref()), (409, Some("max_bytes")));
    assert!(problem.detail.contains(&MIB.to_string()), "{problem:?}");
    host.daemon.patch(common, &json!({"max_bytes": 2 * MIB}).to_string()).await;
    let told = async {
        let mut told = 0;
        while told < 16 {
            let Some(ToVmm::Unmap { image, first, count }) = one.hear().await else { continue };
            one.say(&FromVmm::Unmapped { image, first, count }).await;
            told += count;
        }
    };
    told.await;
    host.daemon.until_pool(|pool| pool.resident_bytes == 2 * MIB).await;
    assert_eq!(host.held("one").await, 32);
    assert_eq!(host.pool().await.shortfalls, []);
}

#[tokio::test]
async fn a_vmm_that_does_not_unmap_is_cut_off_and_its_room_is_used_only_then() {
    let host = host(MIB).await;
    let (evil, evil_faults) = host.guest("evil", "/evil").await;
    evil_faults.fetch(0..16).await;
    let (_other, other) = host.guest("other", "/web").await;
    other.ask(0, 1).await;
    assert!(matches!(evil_faults.hear().await, Some(ToVmm::Unmap { .. })));
    assert!(matches!(other.hear().await, Some(ToVmm::Granules { outcome: GranuleOutcome::There, .. })));
    let cut_off = host.daemon.events_of("pool_unmap_ignored").await;
    assert!(!cut_off.is_empty(), "its room was used before it was cut off");
    host.daemon.until_guests(|guests| guests.len() == 1).await;
    assert_eq!(host.held("other").await, 1);
    drop(evil);
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else() {
    let host = host(MIB).await;
    let (_one, faults) = host.guest("one", "/web").await;
    faults.fetch(0..2).await;
    let ask = |image, first, count| FromVmm::AskGranules { image, first, count };
    for wrong in [
        ask(1, 0, 1),
        ask(0, 0, 0),
        ask(0, 0, GRANULES_ASKED_MAX + 1),
        ask(0, u64::MAX, 1),
        ask(0, 1 << 40, 1),
        FromVmm::Unmapped { image: 9, first: 0, count: 1 },
        FromVmm::Ended { reason: "no".into() },
    ] {
        let faults = serve(&host.run_dir, "one").await.unwrap();
        faults.say(&wrong).await;
        assert!(faults.hear().await.is_none(), "{wrong:?}");
    }
    // Unmapping what was never there is nothing; all there is at once is one message.
    let faults = serve(&host.run_dir, "one").await.unwrap();
    faults.say(&FromVmm::Unmapped { image: 0, first: 0, count: u64::MAX }).await;
    faults.fetch(7..8).await;
    assert_eq!(host.held("one").await, 1);
    for (name, words) in [("nobody", "registered no guest"), ("", "registered no guest")] {
        let Err(reason) = serve(&host.run_dir, name).await else { panic!("{name:?} is served") };
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test]
async fn a_page_that_was_read_without_asking_is_evicted_and_reported() {
    let host = host(MIB).await;
    let (mapped, faults) = host.guest("one", "/web").await;
    faults.fetch(0..1).await;
    // Not watched: the kernel puts zeros where nothing is.
    let pinned = mapped.pin(GRANULE_BYTES * 4, 4096);
    host.daemon.until_event(|event| event.detail.contains("without asking")).await;
    assert_eq!(host.pool().await.resident_bytes, GRANULE_BYTES);
    drop(pinned);
    // And a guest that asks gets the bytes of the image.
    faults.fetch(4..5).await;
    let bytes = host.bytes("web");
    let at = 4 * GRANULE_BYTES + 9;
    assert_eq!(faults.byte(at), bytes[usize::try_from(at).unwrap()]);
}

#[tokio::test]
async fn another_balancer_has_other_memory_and_guests_start_again() {
    let mut host = host(MIB).await;
    let (one, faults) = host.guest("one", "/web").await;
    faults.fetch(0..4).await;
    let inode = |faults: &Faults| faults.images[0].1.metadata().unwrap().ino();
    let before = inode(&faults);
    host.daemon.signal(libc::SIGKILL);
    host.daemon.ended().await;
    host.daemon =
        Daemon::start_with(&host.run_dir, &["--store", host.folder.store(), "--pool", "managed"]).await;
    assert!(serve(&host.run_dir, "one").await.is_err(), "it is not known yet");
    let _one = guest_with(&host.run_dir, one, "/web").await;
    let faults = serve(&host.run_dir, "one").await.unwrap();
    assert_ne!(inode(&faults), before);
    assert_eq!(host.held("one").await, 0);
    assert!(faults.fetch(0..4).await.is_empty());
    assert_eq!(host.pool().await.resident_bytes, 4 * GRANULE_BYTES);
    // While the guest has it, the image stays in the store.
    let removed = std::process::Command::new(env!("CARGO_BIN_EXE_balancer"))
        .args(["image", "rm", &host.image.to_string(), "--store", host.folder.store()])
        .output()
        .unwrap();
    assert!(!removed.status.success(), "{removed:?}");
}
