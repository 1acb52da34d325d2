//! Frame tables that do not say what the kernel says, and tables that are none.

use crate::support::{Daemon, MIB, Vmm, about, run_dir};
use balancer::objects::Event;
use host::kernel::statm_error_frames;
use protocol::frames::{ErrorSource, FrameTable, Region, State};
use protocol::message::{FromVmm, ToVmm};
use protocol::run_dir::RunDir;
use serde_json::{Value, json};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use tokio_seqpacket::UnixSeqpacket;

/// Says to a process of this program which guest it is.
const ROLE: &str = "BALLAST_TEST_ROLE";
const FRAME: u64 = 4096;

/// The `vmm` of a guest in a process of its own, whose memory the kernel counts.
struct Process(Child);

impl Process {
    /// A process that holds so much memory; its table says something else if `claims` does, until it is asked if
    /// `admits`.
    fn start(run_dir: &RunDir, name: &str, held_mib: u64, claims_mib: u64, admits: bool) -> Self {
        let role = json!(
            {"dir": run_dir.dir(), "name": name, "held": held_mib, "claims": claims_mib, "admits": admits}
        );
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "liars::a_vmm_in_a_process_of_its_own", "--ignored", "--nocapture"]);
        Self(command.env(ROLE, role.to_string()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
#[ignore = "the process of a vmm, which other tests start"]
async fn a_vmm_in_a_process_of_its_own() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let role: Value = serde_json::from_str(&role).unwrap();
    let mib = |field: &str| role[field].as_u64().unwrap();
    let run_dir = RunDir::new(Some(role["dir"].as_str().unwrap().into()));
    let held = vec![1u8; usize::try_from(mib("held") * MIB).unwrap()];
    let table = FrameTable::new(&[Region::ram(0, 512 * MIB / FRAME)]).unwrap();
    table.set(0, mib("claims") * MIB / FRAME, State::Private);
    let vmm = Vmm::connect_with(&run_dir, about(role["name"].as_str().unwrap(), "/a", None), table).await;
    while let Some(message) = vmm.hear_any().await {
        if message == ToVmm::Reconcile {
            if role["admits"] == json!(true) {
                vmm.table.set(0, mib("held") * MIB / FRAME, State::Private);
            }
            vmm.table.checked(256 + statm_error_frames(), ErrorSource::KernelTotal);
            vmm.reconcile().await;
        }
    }
    assert_eq!(held.iter().map(|byte| u64::from(*byte)).sum::<u64>(), mib("held") * MIB);
}

fn events_of(events: &[Event], kind: &str) -> Vec<String> {
    let of_kind = events.iter().filter(|event| event.kind == kind);
    of_kind.filter_map(|event| event.guest.clone()).collect()
}

#[tokio::test]
async fn a_vmm_that_lies_is_found_and_an_honest_one_is_not() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let _processes = [
        Process::start(&run_dir, "honest", 200, 200, false),
        // Behind by all that it holds, as after a burst of touches, until it is asked to compare.
        Process::start(&run_dir, "late", 200, 20, true),
        Process::start(&run_dir, "hides", 300, 10, false),
        Process::start(&run_dir, "invents", 10, 400, false),
    ];
    daemon.until_guests(|guests| guests.len() == 4).await;
    for (liar, least) in [("hides", 300), ("invents", 400)] {
        let guest = daemon.until_guest(liar, |guest| !guest.trusted).await;
        let usage = guest.usage_bytes;
        assert!(usage >= least * MIB, "the larger figure is charged: {guest:#?}");
    }
    // Some more ticks: a liar that was found is reported once, and the others never.
    let private = 200 * MIB / FRAME;
    let late = daemon.until_guest("late", |guest| guest.frames.private == private).await;
    daemon.ticks(30).await;
    let honest = daemon.guest("honest").await;
    assert!(late.trusted && honest.trusted);
    assert!(daemon.guest("late").await.trusted);
    let events = daemon.events().await;
    let mut found = events_of(&events, "table_disagrees");
    found.sort();
    assert_eq!(found, ["hides", "invents"], "{events:#?}");
}

/// A sealed memfd of this length with these first bytes.
fn memfd(bytes: &[u8], length: u64) -> File {
    // SAFETY: a valid C string and flags; the result is checked and owned at once.
    let file = unsafe {
        let fd = libc::memfd_create(c"table".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        assert!(fd >= 0);
        File::from_raw_fd(fd)
    };
    file.set_len(length).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: a descriptor that we own.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
    file
}

#[tokio::test]
async fn a_table_of_another_version_or_a_truncated_one_is_refused_and_the_right_one_is_accepted_after_it() {
    let (_dir, run_dir) = run_dir();
    let daemon = Daemon::start(&run_dir).await;
    let mut coming_back = about("a", "/a", None);
    coming_back.comes_back = true;
    let table = FrameTable::new(&[Region::ram(0, 512 * MIB / FRAME)]).unwrap();
    let file = File::from(table.fd().try_clone_to_owned().unwrap());
    let length = file.metadata().unwrap().len();
    let mut good = vec![0; 4096];
    file.read_exact_at(&mut good, 0).unwrap();
    let mut newer = good.clone();
    newer[8..12].copy_from_slice(&99u32.to_le_bytes());
    for (bytes, length, words) in [
        (&newer, length, ["version 99", "reads version"]),
        (&good, length - 4096, [&length.to_string()[..], &(length - 4096).to_string()]),
    ] {
        for comes_back in [false, true] {
            let mut about = about("a", "/a", None);
            about.comes_back = comes_back;
            let socket = UnixSeqpacket::connect(run_dir.guest_socket()).await.unwrap();
            let packet = protocol::message::encode(&FromVmm::Register(about)).unwrap();
            crate::support::send_with_fd(&socket, &packet, memfd(bytes, length).as_fd()).await;
            let mut answer = vec![0; 4096];
            let count = socket.recv(&mut answer).await.unwrap().bytes_read();
            let ToVmm::Refused { reason } = protocol::message::decode(&answer[..count]).unwrap() else {
                panic!("taken in")
            };
            for word in words {
                assert!(reason.contains(word), "{reason:?} does not say {word:?}");
            }
        }
    }
    assert!(daemon.guests().await.is_empty(), "nothing is left of the refused");
    let vmm = Vmm::connect_with(&run_dir, coming_back, table).await;
    assert!(matches!(vmm.hear().await, ToVmm::Registered { .. }));
}
