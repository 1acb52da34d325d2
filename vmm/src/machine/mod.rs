//! A guest from its spec to its end: build, register, run.
//!
//! ```text
//!  GuestSpec --build--> Machine --register--> (balancer knows it) --run--> End
//!                          |                                          |
//!                          +-- RAM, devices, vCPUs, tables            +-- vCPU threads left KVM, sockets removed
//! ```

pub mod attach;
pub(crate) mod build;
mod console;
pub mod layout;
pub(crate) mod roots;

pub use build::{BuildError, build};

use crate::events::control::Control;
use crate::events::queues::Queues;
use crate::events::signals::Signals;
use crate::link::{self, Beside, NotTaken, Registration};
use crate::memory::{Images, MemoryError, Ram};
use crate::own_objects::{fds_expected, threads_expected};
use crate::pool_faults;
use crate::spec::GuestSpec;
use crate::vcpu::{self, End, Shared, kick};
use devices::virtio::block::Block;
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use kvm_ioctls::{VcpuFd, VmFd};
use protocol::bytes::{FRAME_BYTES, Human};
use protocol::frames::FrameTable;
use protocol::limits::Limits;
use protocol::message::{Balloon, PROTOCOL_VERSION, Register};
use protocol::objects::ObjectCounts;
use protocol::path::ContainerPath;
use protocol::place::Place;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// How long vCPU threads may take to leave the guest.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Why a guest does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The balancer or the limit says no.
    #[error("{0}")]
    Refused(String),
    /// The balancer does not take it in.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// The kernel does not merge guest RAM.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The system refused a thread or a descriptor.
    #[error("The system refused a thread or a descriptor")]
    System(#[from] std::io::Error),
    /// The event loop broke.
    #[error("The event loop broke: {0}")]
    Events(String),
}

/// A guest that is ready to run.
pub struct Machine {
    control: Control,
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
    /// Where the balancer is, once it took the guest.
    place: Option<Place>,
}

impl Machine {
    /// Bytes that the guest needs to boot and live: no target goes below.
    #[must_use]
    pub fn floor_bytes(&self) -> u64 {
        self.floor_bytes
    }

    /// Makes a balancer responsible for the guest, starting one if need be; or applies the limit alone.
    ///
    /// # Errors
    /// When the guest is refused, or no balancer can be reached.
    pub fn register(&mut self, place: Option<Place>) -> Result<(), StartError> {
        let limits = self.spec.container_limit.as_ref().map(|patch| Limits::default().patched(patch));
        let ceiling = limits.as_ref().and_then(Limits::ceiling_bytes);
        if let Some(ceiling) = ceiling.filter(|ceiling| *ceiling < self.floor_bytes) {
            return Err(StartError::Refused(format!(
                "container-limit is {}, but this guest needs at least {} to boot",
                Human(ceiling),
                Human(self.floor_bytes)
            )));
        }
        let (cpus, has_disks) = (self.spec.cpu_count(), !self.disks.is_empty());
        let (fds, threads) = (fds_expected(), threads_expected(cpus, has_disks, self.images.has_managed()));
        let Some(place) = place else {
            let objects = ObjectCounts {
                vcpus: cpus.into(),
                guests: 1,
                devices: self.devices.into(),
                fds: fds.into(),
                threads: threads.into(),
            };
            let beyond = limits.as_ref().and_then(|limits| objects.beyond(limits).next());
            if let Some((kind, max)) = beyond {
                let (key, needed) = (kind.key(), objects.of(kind));
                return Err(StartError::Refused(format!("{key} is {max}, but this guest needs {needed}")));
            }
            // Alone: the limit less what this process itself takes.
            if let Some(ceiling) = ceiling {
                // Images are not touched yet.
                let overhead = resident_bytes().saturating_sub(self.ram.resident_bytes()?);
                let target = ceiling.saturating_sub(overhead).max(self.floor_bytes).min(self.ram.bytes());
                self.control.limit_alone(target)?;
            }
            return Ok(());
        };
        let register = Register {
            protocol_version: PROTOCOL_VERSION,
            name: self.name.clone(),
            container: self.container.clone(),
            may_charge: self.spec.may_charge.clone(),
            charge_to: None,
            owners: vec![],
            limits: self.spec.container_limit.clone(),
            images: self.images.told(),
            merge: self.spec.merge,
            ram_bytes: self.ram.bytes(),
            floor_bytes: self.floor_bytes,
            cpus: cpus.into(),
            devices: self.devices,
            fds,
            threads,
            engine: "kvm".into(),
            machine: None,
            comes_back: false,
            wait: self.spec.wait.is_some(),
            has_balloon: true,
            ram_unseen: None,
            balloon: Balloon {
                target_bytes: self.ram.bytes(),
                actual_bytes: self.ram.bytes(),
                ..Default::default()
            },
        };
        let signals = signals(&self.shared.end)?;
        let beside = Beside { signals: &signals, wait: self.spec.wait, machine: None };
        let (link, answer) = link::enter(&place, &register, self.table.fd(), &beside)?;
        // Not before: it is the balancer that knows with whom pages would be shared.
        if self.spec.merge {
            self.ram.merge()?;
        }
        self.place = Some(place.clone());
        self.control.linked(Registration { place, register }, link, &answer);
        Ok(())
    }

    /// Runs the guest until it ends.
    ///
    /// # Errors
    /// When the system refuses threads or the event loop breaks.
    pub fn run(mut self) -> Result<End, StartError> {
        let broke = |error: event_manager::Error| StartError::Events(error.to_string());
        kick::install()?;
        let control = Arc::new(std::sync::Mutex::new(self.control));
        let mut manager = EventManager::<Box<dyn MutEventSubscriber>>::new().map_err(broke)?;
        manager.add_subscriber(Box::new(Arc::clone(&control)));
        for subscriber in self.subscribers.drain(..) {
            manager.add_subscriber(subscriber);
        }
        manager.add_subscriber(Box::new(Wake(self.wake)));
        let mapped = (Arc::clone(&self.ram), Arc::clone(&self.images));
        serve_disks(std::mem::take(&mut self.disks), mapped)?;
        if let Some(place) = self.place.take().filter(|_| self.images.has_managed()) {
            pool_faults::start(Arc::clone(&self.images), Arc::clone(&self.table), place, self.name.clone())?;
        }
        let mut threads = Vec::new();
        for (index, vcpu) in self.vcpus.drain(..).enumerate() {
            let index = u8::try_from(index).expect("at most 16");
            threads.push(vcpu::start(index, vcpu, Arc::clone(&self.shared))?);
        }
        let end = loop {
            manager.run().map_err(broke)?;
            if let Ok(end) = self.ends.try_recv() {
                break end;
            }
        };
        self.shared.stop.store(true, Relaxed);
        self.shared.gate.set_closed(false);
        let deadline = Instant::now() + STOP_DEADLINE;
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            threads.iter().filter(|thread| !thread.is_finished()).for_each(kick::kick);
            std::thread::sleep(Duration::from_millis(1));
        }
        control.lock().unwrap_or_else(PoisonError::into_inner).say_ended(&end.to_string());
        Ok(end)
    }
}

/// Serves disks on a thread that ends with the process, and keeps guest memory mapped until then.
fn serve_disks(disks: Vec<Queues<Block>>, mapped: (Arc<Ram>, Arc<Images>)) -> Result<(), StartError> {
    if disks.is_empty() {
        return Ok(());
    }
    let broke = |error: event_manager::Error| StartError::Events(error.to_string());
    let mut manager = EventManager::<Queues<Block>>::new().map_err(broke)?;
    for disk in disks {
        manager.add_subscriber(disk);
    }
    std::thread::Builder::new().name("disks".into()).spawn(move || {
        let _mapped = mapped;
        loop {
            if let Err(error) = manager.run() {
                tracing::error!(%error, "The disks are served no more");
                return;
            }
        }
    })?;
    Ok(())
}

/// Wakes the event loop, which then looks for an end.
pub(crate) struct Wake(pub EventFd);

impl MutEventSubscriber for Wake {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        let _ = self.0.read();
    }
    fn init(&mut self, ops: &mut EventOps<'_>) {
        crate::events::watch(ops, &self.0, 0);
    }
}

/// Signals that end this process, as an event.
pub(crate) fn signals(end: &std::sync::mpsc::Sender<End>) -> std::io::Result<Signals> {
    Signals::new(end.clone())
}

/// Memory that this process holds by the kernel's count, bytes; 0 if the kernel does not tell.
fn resident_bytes() -> u64 {
    resident_bytes_of("self")
}

/// The same of any process, by its folder in `/proc`.
pub(crate) fn resident_bytes_of(process: &str) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    pages * FRAME_BYTES
}
