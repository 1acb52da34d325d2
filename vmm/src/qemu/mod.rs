//! The `qemu` engine: a guest on a QEMU of this process, or on one that somebody else started.
//!
//! ```text
//!   balancer <--link--> session -----orders----> operator --QMP--> qemu-system-x86_64, TCG or KVM
//!                          |    <-----news------    |                   guest RAM: private, anonymous
//!                          |                                                ^
//!                     frame table <--- reconciler ---- page map of QEMU's process
//! ```
//!
//! To the balancer it is a guest as any other: the same registration, targets, statistics and frame table. What differs is what
//! can be known. Who gives memory back here is QEMU, which does not tell which frames: a frame is *private* if the kernel holds a
//! page for it, else *unknown* (never used, in the balloon, reported). What the balloon holds is the guest's word, not the host's count.
//!
//! | file | what |
//! |---|---|
//! | `arguments`, `child` | QEMU's command line, and QEMU as a child that ends with this process |
//! | `qmp` | the protocol of its monitor, with deadlines |
//! | `operator` | the one thread that waits for QEMU |
//! | `session`, `targets`, `ballooned` | the event loop's part: balancer, targets, charges; what the balloon held when |
//! | `balloon`, `ram`, `images`, `process` | what the machine has: its balloon and statistics, where RAM and images are, which process it is |
//! | `watch` | how far the frame table may be off |
//! | `found` | how somebody else's machine was before |
//! | `own`, `attach` | a guest from its start to its end; a guest that was there |

mod arguments;
mod attach;
mod balloon;
mod ballooned;
mod child;
mod found;
mod images;
mod operator;
mod own;
mod process;
pub mod qmp;
mod ram;
mod session;
mod targets;
mod watch;

pub use arguments::Accelerator;
pub use attach::{AttachSpec, attach};
pub use child::QEMU_VARIABLE;
pub use own::run;

use crate::boot::kernel::LoadError;
use crate::disk_cache::DiskCache;
use crate::events::signals::Signals;
use crate::link::{self, Beside, NotTaken, Registration};
use crate::machine::{BuildError, Wake};
use crate::memory::{Comparison, MemoryError, Pagemap};
use crate::reconciler::{Reconciler, Watch};
use crate::vcpu::End;
use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use process::ProcessError;
use protocol::frames::{FrameTable, LayoutError, Region};
use protocol::message::Register;
use protocol::place::Place;
use qmp::QmpError;
use ram::{Mapped, RamError, RamPlace};
use session::Session;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// Why a guest does not run on QEMU, or is not attached.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// No kernel was named.
    #[error("No kernel: give --kernel FILE")]
    NoKernel,
    /// The engine lacks something.
    #[error("{what} is asked for, which the engine qemu cannot do: {why}")]
    CannotDo {
        /// The flag.
        what: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// The balancer or the limit says no.
    #[error("{0}")]
    Refused(String),
    /// Kernel or initrd.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// RAM to load them into.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A disk or another file.
    #[error(transparent)]
    File(#[from] BuildError),
    /// QEMU cannot be started.
    #[error("Cannot start {} (install qemu-system-x86, or name it in {QEMU_VARIABLE})", program.display())]
    Spawn {
        /// What was tried.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// QEMU ended before it answered.
    #[error("{0}")]
    Ended(String),
    /// QEMU does not answer, or not as it should.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The machine's RAM.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The machine's process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Frame table.
    #[error("Cannot make the frame table")]
    Table(#[from] LayoutError),
    /// The balancer does not take it in.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// The system refused a thread or a descriptor.
    #[error("The system refused a thread or a descriptor")]
    System(#[from] io::Error),
    /// The event loop broke.
    #[error("The event loop broke: {0}")]
    Events(String),
}

/// A table of the machine's RAM, the thread that keeps it true as far as it can be known, and why RAM is unknown if it is.
fn frames(
    place: &RamPlace,
    images: &[(Region, u64)],
    pid: i32,
    disks: DiskCache,
) -> Result<(Arc<FrameTable>, Reconciler, Option<String>), QemuError> {
    let unseen = match (&place.slots, place.mapped_in(pid)?) {
        (Err(why), _) => Some(why.clone()),
        (_, Mapped::Otherwise(what)) => {
            Some(format!("it is no private anonymous memory ({what}): what is held is not what is mapped"))
        }
        (_, Mapped::No) => Some(format!("process {pid} has it nowhere")),
        (Ok(_), Mapped::Private) => None,
    };
    if let Some(why) = &unseen {
        tracing::warn!(why, "The frames of guest RAM cannot be looked at: all of them are unknown");
    }
    let regions: Vec<Region> =
        place.regions().into_iter().chain(images.iter().map(|(region, _)| *region)).collect();
    let table = Arc::new(FrameTable::new(&regions)?);
    table.set_residency_only();
    let (mut slots, watch): (Vec<_>, Box<dyn Watch>) = match (&place.slots, &unseen) {
        (Ok(slots), None) => (slots.clone(), Box::new(watch::MachineMemory::open(pid)?)),
        _ => (vec![], Box::new(watch::Unseen)),
    };
    slots.extend_from_slice(images);
    let comparison = Comparison::of_slots(slots, Arc::clone(&table), Pagemap::of_process(pid)?);
    let reconciler = Reconciler::watching(comparison, watch, Arc::clone(&table), disks)?;
    Ok((table, reconciler, unseen))
}

/// Makes the balancer in a place responsible for the guest.
fn register(
    session: &mut Session,
    table: &FrameTable,
    place: Place,
    register: Register,
    beside: &Beside<'_>,
) -> Result<(), QemuError> {
    let (link, answer) = link::enter(&place, &register, table.fd(), beside)?;
    session.linked(Registration { place, register }, link, &answer);
    Ok(())
}

/// A signal that came while a guest was started is why that failed, whatever it broke.
fn or_signal(error: QemuError, signals: &Signals) -> QemuError {
    signals.take().map_or(error, |number| NotTaken::Ended(number).into())
}

/// Serves a session until its guest ends, and calls `at_end` before the balancer is told of it; also if it cannot be served.
fn serve(
    session: Session,
    others: Vec<Box<dyn MutEventSubscriber>>,
    (ends, wake): (Receiver<End>, EventFd),
    at_end: impl FnOnce(Result<End, QemuError>, &Session) -> Result<End, QemuError>,
) -> Result<End, QemuError> {
    let session = Arc::new(Mutex::new(session));
    let end = serve_until(&session, others, (ends, wake));
    let session = session.lock().unwrap_or_else(PoisonError::into_inner);
    let end = at_end(end.map_err(|error| QemuError::Events(error.to_string())), &session)?;
    session.say_ended(&end.to_string());
    Ok(end)
}

fn serve_until(
    session: &Arc<Mutex<Session>>,
    others: Vec<Box<dyn MutEventSubscriber>>,
    (ends, wake): (Receiver<End>, EventFd),
) -> Result<End, event_manager::Error> {
    let mut manager = EventManager::<Box<dyn MutEventSubscriber>>::new()?;
    manager.add_subscriber(Box::new(Arc::clone(session)));
    for subscriber in others {
        manager.add_subscriber(subscriber);
    }
    manager.add_subscriber(Box::new(Wake(wake)));
    loop {
        manager.run()?;
        if let Ok(end) = ends.try_recv() {
            return Ok(end);
        }
    }
}
