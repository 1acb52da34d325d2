//! What the balancer reads from the host's kernel and asks of it, and the clock. A value, so that a test gives its own.

use crate::guests::{Guest, GuestSeq, KernelSample, ProcessObjects, Reading, TableSample};
use host::meminfo::HostSample;
use host::proc::{Folder, Stat};
use protocol::frames::FrameReader;
use protocol::image::MappedImage;
use protocol::message::{MachineProcess, Register};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

/// The kernel of the host.
pub trait Kernel: Debug + Send + Sync {
    /// The time.
    fn now(&self) -> Instant;

    /// The memory of the host.
    fn host(&self) -> HostSample;

    /// The memory of a `vmm`, and of the process that has the guest's RAM where that is another one. `None` when a
    /// process is gone.
    fn memory(&self, pid: i32, machine: Option<MachineProcess>) -> Option<KernelSample>;

    /// The objects of the same processes. `None` when the `vmm` is gone.
    fn objects(&self, pid: i32, machine: Option<MachineProcess>) -> Option<ProcessObjects>;

    /// The process that started this one. `None` when there is no such process.
    fn parent(&self, pid: i32) -> Option<i32>;

    /// Ends a process.
    fn kill(&self, pid: i32);
}

/// The kernel that this process runs on.
#[derive(Debug)]
pub struct HostKernel;

impl Kernel for HostKernel {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn host(&self) -> HostSample {
        HostSample::take()
    }

    fn memory(&self, pid: i32, machine: Option<MachineProcess>) -> Option<KernelSample> {
        KernelSample::of_guest(pid, machine)
    }

    fn objects(&self, pid: i32, machine: Option<MachineProcess>) -> Option<ProcessObjects> {
        ProcessObjects::of_guest(pid, machine)
    }

    fn parent(&self, pid: i32) -> Option<i32> {
        Some(Folder::of(pid).read::<Stat>().ok()?.parent)
    }

    fn kill(&self, pid: i32) {
        // A process that has just ended by itself has released its memory as well.
        host::process::kill(pid).ok();
    }
}

/// Where a guest is read: this is collected under the lock and read outside of it.
#[derive(Debug)]
pub(in crate::state) struct Source {
    seq: GuestSeq,
    processes: (i32, Option<MachineProcess>),
    frames: Arc<FrameReader>,
    images: Vec<MappedImage>,
}

/// What was read of a guest. The guest may be gone by now.
#[derive(Debug)]
pub(in crate::state) struct Sample {
    pub seq: GuestSeq,
    pub memory: Option<Reading>,
    pub objects: Option<ProcessObjects>,
}

impl Source {
    pub(in crate::state) fn of(guest: &Guest) -> Self {
        Self {
            seq: guest.seq,
            processes: (guest.pid, guest.about.machine),
            frames: Arc::clone(&guest.frames),
            images: guest.about.images.clone(),
        }
    }

    /// Reads the memory alone.
    pub(in crate::state) fn memory(&self, kernel: &dyn Kernel) -> Sample {
        let memory = read(kernel, self.processes, (&self.frames, &self.images));
        Sample { seq: self.seq, memory, objects: None }
    }

    /// Reads everything.
    pub(in crate::state) fn all(&self, kernel: &dyn Kernel) -> Sample {
        let (pid, machine) = self.processes;
        Sample { objects: kernel.objects(pid, machine), ..self.memory(kernel) }
    }
}

/// What is read when a process asks to be registered.
#[derive(Debug)]
pub(in crate::state) struct CandidateSample {
    pub memory: Option<Reading>,
    pub objects: Option<ProcessObjects>,
    /// The process that started the one with the guest's RAM.
    pub machine_parent: Option<i32>,
    /// The host's figures, as new as those of the guest, which may hold much already.
    pub host: HostSample,
}

impl CandidateSample {
    pub(in crate::state) fn take(
        kernel: &dyn Kernel,
        about: &Register,
        pid: i32,
        frames: &FrameReader,
    ) -> Self {
        Self {
            memory: read(kernel, (pid, about.machine), (frames, &about.images)),
            objects: kernel.objects(pid, about.machine),
            machine_parent: about.machine.and_then(|machine| kernel.parent(machine.pid)),
            host: kernel.host(),
        }
    }
}

fn read(
    kernel: &dyn Kernel,
    (pid, machine): (i32, Option<MachineProcess>),
    (frames, images): (&FrameReader, &[MappedImage]),
) -> Option<Reading> {
    let table = || TableSample::take(frames, images);
    Reading::of(table, || kernel.memory(pid, machine), || kernel.now())
}
