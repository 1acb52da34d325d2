use super::*;
use crate::journal::Journal;
use crate::pool::Library;
use accounting::System;
use policy::{self, Knobs};
use protocol::frames::{FrameTable, Region};
use protocol::image::Backing;
use protocol::message::MachineProcess;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub const MIB: u64 = 1 << 20;

/// A balancer without guests, and the folder of its journal.
pub fn balancer() -> (tempfile::TempDir, Arc<Balancer>) {
    let dir = tempfile::tempdir().unwrap();
    let (journal, tree, bindings) = Journal::open(&dir.path().join("journal")).unwrap();
    let library = Library::new(&dir.path().join("store"), Backing::Pagecache);
    let balancer = Balancer::new(journal, (tree, bindings), System::default(), library, Knobs::default());
    (dir, Arc::new(balancer))
}

/// A guest of 512 MiB that needs 64 MiB to start.
pub fn about(name: &str) -> Register {
    Register {
        floor_bytes: 64 * MIB,
        devices: 2,
        fds: 30,
        threads: 4,
        wait: true,
        ..Register::of(name, format!("/{name}").parse().unwrap(), 512 * MIB)
    }
}

/// A shell that stands for a `vmm`, and a process of its that holds 64 MiB, as a QEMU that was started and waits.
struct Processes {
    shell: Child,
    machine: MachineProcess,
}

impl Processes {
    fn start() -> Self {
        // What dd has read into its buffer it can write to nobody.
        let script = "dd if=/dev/zero bs=64M count=1 2>/dev/null & echo $! >&2; wait";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = command.spawn().unwrap();
        let mut pid = String::new();
        BufReader::new(shell.stderr.take().unwrap()).read_line(&mut pid).unwrap();
        let machine = MachineProcess { pid: pid.trim().parse().unwrap(), attached: false };
        let processes = Self { shell, machine };
        let start = Instant::now();
        while KernelSample::take(machine.pid).unwrap().resident_bytes < 64 * MIB {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not hold 64 MiB");
            std::thread::sleep(Duration::from_millis(5));
        }
        processes
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.shell.id()).unwrap()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // The other one ends when nobody can read what it writes.
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn what_a_waiting_qemu_holds_already_is_not_missing_for_it() {
    let (_dir, balancer) = balancer();
    let processes = Processes::start();
    let about = Register { engine: Engine::Qemu, machine: Some(processes.machine), ..about("a") };
    let frames = FrameTable::new(&[Region::ram(0, about.ram_bytes / 4096)]).unwrap();
    let frames = Arc::new(FrameReader::open(frames.fd()).unwrap());
    let (outbox, _inbox) = mpsc::channel(8);
    let candidate = Candidate { about, pid: processes.pid(), frames, outbox };
    // It needs 192 MiB, and its two processes have 64 MiB and little more of them.
    let register = |bytes, ticket| {
        balancer.state().budget = Some(policy::Budget { bytes, reserve_bytes: 0, stalled: false });
        balancer.register(&candidate, ticket).map_err(Refusal::reason)
    };
    let missing = |bytes, ticket| register(bytes, ticket).unwrap_err();
    let reason = missing(144 * MIB, None);
    assert!(reason.contains("48M are missing"), "{reason}");
    let ticket = balancer.wait(&candidate.about, ContainerPath::root(), &reason).unwrap();
    let reason = missing(96 * MIB, Some(ticket.number()));
    assert!(reason.contains("\"a\" needs 64M to start and 128M beside"), "{reason}");
    register(144 * MIB, Some(ticket.number())).unwrap();
}
