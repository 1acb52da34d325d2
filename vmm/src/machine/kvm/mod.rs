//! A guest on KVM from its spec to its end: build, register, run.
//!
//! ```text
//!  GuestSpec --build--> Guest --register--> (balancer knows it) --run--> End
//!                         |                                          |
//!                         +-- RAM, devices, vCPUs, tables            +-- vCPU threads left KVM, sockets removed
//! ```

pub mod attach;
mod build;
mod console;
pub(crate) mod machine;

pub use build::{BuildError, build};
pub use machine::KvmMachine;

use super::launch::{self, LaunchRefused};
use super::resident_bytes;
use crate::control::Control;
use crate::events::event_loop::{EventLoop, EventLoopError};
use crate::events::queues::Queues;
use crate::events::signals::Signals;
use crate::link::{Interrupts, NotAdmitted};
use crate::memory::{Images, MemoryError, Ram};
use crate::objects::{fds_expected, threads_expected};
use crate::pool_faults;
use crate::spec::GuestSpec;
use crate::vcpu::{self, End, Shared, kick};
use devices::virtio::block::Block;
use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use kvm_ioctls::{VcpuFd, VmFd};
use protocol::frames::FrameTable;
use protocol::limits::Limits;
use protocol::message::Register;
use protocol::path::ContainerPath;
use protocol::run_dir::RunDir;
use protocol::sync::MutexExt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// How long vCPU threads may take to leave the guest.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Why a guest does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its limits do not allow it.
    #[error(transparent)]
    Refused(#[from] LaunchRefused),
    /// The balancer does not admit it.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// The kernel does not merge guest RAM.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The system refused a thread or a descriptor.
    #[error("The system refused a thread or a descriptor")]
    System(#[from] std::io::Error),
    /// The event loop broke.
    #[error(transparent)]
    Events(#[from] EventLoopError),
}

/// A guest that is ready to run.
pub struct Guest {
    control: Control<KvmMachine>,
    subscribers: Vec<Box<dyn MutEventSubscriber>>,
    /// Served by a thread of their own: a flush takes as long as the medium does, and nothing else waits for it.
    disks: Vec<Queues<Block>>,
    vcpus: Vec<VcpuFd>,
    shared: Arc<Shared>,
    wake: EventFd,
    ends: Receiver<End>,
    name: String,
    container: ContainerPath,
    spec: GuestSpec,
    floor_bytes: u64,
    devices: u32,
    table: Arc<FrameTable>,
    _vm: VmFd,
    // Dropped last: KVM's memory slots point into them.
    ram: Arc<Ram>,
    images: Arc<Images>,
    /// Where the balancer is, once it admitted the guest.
    run_dir: Option<RunDir>,
}

impl Guest {
    /// Bytes that the guest needs to boot and live: no target goes below.
    #[must_use]
    pub fn floor_bytes(&self) -> u64 {
        self.floor_bytes
    }

    /// Makes a balancer responsible for the guest, starting one if need be; or applies the limit without one.
    ///
    /// # Errors
    /// When the guest is refused, or no balancer can be reached.
    pub fn register(&mut self, run_dir: Option<RunDir>) -> Result<(), StartError> {
        let limits = launch::limits(&self.spec);
        launch::check_floor(limits.as_ref(), self.floor_bytes, None)?;
        let register = self.registration();
        let Some(run_dir) = run_dir else { return self.limit_standalone(limits.as_ref(), &register) };
        let signals = Signals::new(self.shared.end.clone())?;
        let interrupts = Interrupts { signals: &signals, wait: self.spec.wait, machine: None };
        self.control.register(run_dir.clone(), register, &interrupts)?;
        // Not before: the balancer knows which guests would share the pages.
        if self.spec.merge {
            self.ram.merge()?;
        }
        self.run_dir = Some(run_dir);
        Ok(())
    }

    fn registration(&self) -> Register {
        let (cpus, has_disks) = (self.spec.cpu_count(), !self.disks.is_empty());
        Register {
            may_charge: self.spec.may_charge.clone(),
            limits: self.spec.container_limit.clone(),
            images: self.images.told(),
            merge: self.spec.merge,
            floor_bytes: self.floor_bytes,
            cpus: cpus.into(),
            devices: self.devices,
            fds: fds_expected(),
            threads: threads_expected(cpus, has_disks, self.images.has_managed()),
            wait: self.spec.wait.is_some(),
            ..Register::of(self.name.clone(), self.container.clone(), self.ram.bytes())
        }
    }

    /// Without a balancer: the limit, less what this process itself takes.
    fn limit_standalone(&mut self, limits: Option<&Limits>, register: &Register) -> Result<(), StartError> {
        launch::check_objects(limits, register)?;
        if let Some(ceiling) = limits.and_then(Limits::ceiling_bytes) {
            // Images are not touched yet.
            let overhead =
                resident_bytes(&host::proc::Folder::own()).saturating_sub(self.ram.resident_bytes()?);
            self.control.limit_standalone(ceiling.saturating_sub(overhead), self.floor_bytes)?;
        }
        Ok(())
    }

    /// Runs the guest until it ends.
    ///
    /// # Errors
    /// When the system refuses threads or the event loop breaks.
    pub fn run(mut self) -> Result<End, StartError> {
        kick::install()?;
        let control = Arc::new(Mutex::new(self.control));
        let mut subscribers: Vec<Box<dyn MutEventSubscriber>> = vec![Box::new(Arc::clone(&control))];
        subscribers.append(&mut self.subscribers);
        let mut events = EventLoop::new(subscribers, (self.ends, self.wake))?;
        let mapped = (Arc::clone(&self.ram), Arc::clone(&self.images));
        serve_disks(self.disks, mapped)?;
        if let Some(run_dir) = self.run_dir.filter(|_| self.images.has_managed()) {
            pool_faults::start(Arc::clone(&self.images), Arc::clone(&self.table), run_dir, self.name)?;
        }
        let mut threads = Vec::new();
        for (index, vcpu) in (0..).zip(self.vcpus) {
            threads.push(vcpu::start(index, vcpu, Arc::clone(&self.shared))?);
        }
        let end = events.run()?;
        stop(&self.shared, &threads);
        control.acquire().send_end(&end.to_string());
        Ok(end)
    }
}

/// Makes the vCPU threads leave the guest.
fn stop(shared: &Shared, threads: &[JoinHandle<()>]) {
    shared.stop.store(true, Relaxed);
    shared.gate.set_closed(false);
    let deadline = Instant::now() + STOP_DEADLINE;
    while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
        threads.iter().filter(|thread| !thread.is_finished()).for_each(kick::kick);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Serves disks on a thread that ends with the process, and keeps guest memory mapped until then.
fn serve_disks(disks: Vec<Queues<Block>>, mapped: (Arc<Ram>, Arc<Images>)) -> Result<(), StartError> {
    if disks.is_empty() {
        return Ok(());
    }
    let mut manager = EventManager::<Queues<Block>>::new().map_err(EventLoopError::from)?;
    for disk in disks {
        manager.add_subscriber(disk);
    }
    std::thread::Builder::new().name("disks".into()).spawn(move || {
        let _mapped = mapped;
        loop {
            if let Err(error) = manager.run() {
                tracing::error!(%error, "The disks are not served any more");
                return;
            }
        }
    })?;
    Ok(())
}
