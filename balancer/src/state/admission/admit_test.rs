use super::*;
use crate::guests::{KernelSample, ProcessObjects};
use crate::journal::Journal;
use crate::pool::Library;
use crate::state::Kernel;
use accounting::System;
use host::meminfo::{HostMemory, HostSample};
use policy::{self, Knobs};
use protocol::engine::Engine;
use protocol::frames::{FrameTable, Region};
use protocol::image::Backing;
use protocol::message::{FromVmm, MachineProcess};
use std::sync::Mutex;
use std::time::Duration;

pub const MIB: u64 = 1 << 20;

/// A kernel and a clock that a test sets.
#[derive(Debug)]
pub struct TestKernel(Mutex<Figures>);

#[derive(Debug)]
pub struct Figures {
    pub now: Instant,
    pub available_bytes: u64,
    pub resident_bytes: u64,
    pub parent: Option<i32>,
    pub killed: Vec<i32>,
}

impl TestKernel {
    pub fn set<T>(&self, set: impl FnOnce(&mut Figures) -> T) -> T {
        set(&mut self.0.lock().unwrap())
    }
}

impl Default for TestKernel {
    fn default() -> Self {
        Self(Mutex::new(Figures {
            now: Instant::now(),
            available_bytes: 6 << 30,
            resident_bytes: 0,
            parent: None,
            killed: vec![],
        }))
    }
}

impl Kernel for TestKernel {
    fn now(&self) -> Instant {
        self.set(|figures| figures.now)
    }

    fn host(&self) -> HostSample {
        self.set(|figures| {
            let total_bytes = 8 << 30;
            let memory =
                HostMemory { total_bytes, available_bytes: figures.available_bytes, ..HostMemory::default() };
            HostSample { memory, at: figures.now }
        })
    }

    fn memory(&self, _pid: i32, _machine: Option<MachineProcess>) -> Option<KernelSample> {
        self.set(|figures| {
            Some(KernelSample {
                resident_bytes: figures.resident_bytes,
                anonymous_bytes: figures.resident_bytes,
                swapped_bytes: 0,
                page_tables_bytes: 0,
                at: figures.now,
            })
        })
    }

    fn objects(&self, _pid: i32, _machine: Option<MachineProcess>) -> Option<ProcessObjects> {
        None
    }

    fn parent(&self, _pid: i32) -> Option<i32> {
        self.set(|figures| figures.parent)
    }

    fn kill(&self, pid: i32) {
        self.set(|figures| figures.killed.push(pid));
    }
}

/// A balancer without guests, the kernel that it asks, and the folder of its journal.
pub fn balancer() -> (tempfile::TempDir, Arc<TestKernel>, Arc<Balancer>) {
    let dir = tempfile::tempdir().unwrap();
    let (journal, tree, bindings) = Journal::open(&dir.path().join("journal")).unwrap();
    let library = Library::new(&dir.path().join("store"), Backing::Pagecache);
    let (kernel, knobs) = (Arc::new(TestKernel::default()), Knobs::default());
    let asked: Arc<dyn Kernel> = Arc::<TestKernel>::clone(&kernel);
    let balancer = Balancer::new(journal, (tree, bindings), System::default(), library, knobs, asked);
    (dir, kernel, Arc::new(balancer))
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

/// Such a guest of this process, with the receiver of its messages.
pub fn candidate(about: Register, pid: i32) -> (Candidate, mpsc::Receiver<ToVmm>) {
    let frames = FrameTable::new(&[Region::ram(0, about.ram_bytes / 4096)]).unwrap();
    let frames = Arc::new(FrameReader::open(frames.fd()).unwrap());
    let (outbox, inbox) = mpsc::channel(64);
    (Candidate { about, pid, frames, outbox }, inbox)
}

#[test]
fn memory_that_a_waiting_qemu_holds_already_is_not_missing_for_it() {
    let (_dir, kernel, balancer) = balancer();
    let machine = MachineProcess { pid: 4001, attached: false };
    let about = Register { engine: Engine::Qemu, machine: Some(machine), ..about("a") };
    let (candidate, _inbox) = candidate(about, 4000);
    kernel.set(|figures| (figures.parent, figures.resident_bytes) = (Some(4000), 64 * MIB));
    // It needs 192 MiB, and its two processes have 64 MiB of them.
    let register = |bytes, ticket| {
        balancer.change(|state, _| {
            state.decisions.budget = Some(policy::Budget { bytes, reserve_bytes: 0, stalled: false });
        });
        balancer.register(&candidate, ticket).map_err(Refusal::reason)
    };
    let missing = |bytes, ticket| register(bytes, ticket).unwrap_err();
    let reason = missing(144 * MIB, None);
    assert!(reason.contains("48M are missing"), "{reason}");
    let ticket = balancer.wait(&candidate.about, ContainerPath::root(), &reason).unwrap();
    let reason = missing(127 * MIB, Some(ticket.number()));
    assert!(reason.contains("\"a\" needs 64M to start and 128M beside"), "{reason}");
    assert!(reason.contains("1M are missing"), "{reason}");
    register(128 * MIB, Some(ticket.number())).unwrap();
}

#[test]
fn a_qemu_must_be_a_child_of_the_vmm_that_registers_it() {
    let (_dir, kernel, balancer) = balancer();
    let machine = MachineProcess { pid: 4001, attached: false };
    let about = Register { engine: Engine::Qemu, machine: Some(machine), ..about("a") };
    let (candidate, _inbox) = candidate(about, 4000);
    for (parent, text) in [(None, "no such process"), (Some(1), "not a child of process 4000")] {
        kernel.set(|figures| figures.parent = parent);
        let reason = balancer.register(&candidate, None).unwrap_err().reason();
        assert!(reason.contains(text), "{reason}");
    }
}

#[test]
fn the_guest_that_the_policy_ends_is_killed() {
    let (_dir, kernel, balancer) = balancer();
    let (a, mut inbox) = candidate(about("a"), 4000);
    balancer
        .turn_knobs(&crate::objects::KnobsPatch {
            oom_policy: Some(policy::OomPolicy::Kill),
            ..Default::default()
        })
        .unwrap();
    balancer.register(&a, None).unwrap();
    kernel.set(|figures| (figures.available_bytes, figures.resident_bytes) = (MIB, 512 * MIB));
    for _ in 0..600 {
        kernel.set(|figures| figures.now += Duration::from_secs(1));
        balancer.tick();
        while inbox.try_recv().is_ok() {}
    }
    let killed = kernel.set(|figures| figures.killed.clone());
    assert!(!killed.is_empty() && killed.iter().all(|pid| *pid == 4000), "{killed:?}");
    assert!(balancer.events_since(0).iter().any(|event| event.kind == "oom_killed"));
}

#[test]
fn a_reading_of_a_guest_that_left_is_dropped_and_so_is_an_old_reading() {
    let (_dir, kernel, balancer) = balancer();
    let (a, _inbox) = candidate(about("a"), 4000);
    let resident = || balancer.guest("a").unwrap().resident_bytes;
    let first = balancer.register(&a, None).unwrap().seq;
    let source =
        || balancer.view(|state, _| crate::state::kernel::Source::of(state.guests.get(first).unwrap()));
    kernel.set(|figures| figures.resident_bytes = 3 * MIB);
    let (old, late) = (source().all(&*kernel), source());
    kernel.set(|figures| (figures.now, figures.resident_bytes) = (figures.now + Duration::from_secs(1), MIB));
    balancer.tick();
    balancer.change(|state, _| state.guests.take(old));
    assert_eq!(resident(), Some(MIB), "the newer reading stays");
    // Another guest takes the name while the first one is read.
    balancer.hang_up(first, "it left");
    let second = balancer.register(&a, None).unwrap().seq;
    assert_ne!(first, second);
    kernel.set(|figures| {
        (figures.now, figures.resident_bytes) = (figures.now + Duration::from_secs(1), 9 * MIB)
    });
    balancer.change(|state, _| state.guests.take(late.all(&*kernel)));
    assert_eq!(resident(), Some(MIB), "the reading was not of this guest");
    // Neither does a message of the first session reach the second one.
    balancer.receive(first, FromVmm::Stuck { reason: Some("late".into()) });
    assert_eq!(balancer.guest("a").unwrap().stuck, None);
}
