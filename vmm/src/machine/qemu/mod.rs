//! The engine `qemu`: a guest on a QEMU that this process starts, or on one that another program started.
//!
//! ```text
//!   balancer <--link--> Control<QemuMachine> --requests--> worker --QMP--> qemu-system-x86_64, TCG or KVM
//!                          |                <--updates---   |               guest RAM: private, anonymous
//!                          |                                                ^
//!                     frame table <--- reconciler ------ pagemap of QEMU's process
//! ```
//!
//! For the balancer this guest is like any other: the same registration, targets, statistics and frame table. The
//! difference is what can be known. Here QEMU releases memory, and it does not report which frames: a frame is
//! *private* if the kernel holds a page for it, else *unknown* (never used, in the balloon, or reported by the
//! guest). The size of the balloon is what the guest says, not what the host counts.
//!
//! | file | what |
//! |---|---|
//! | `arguments`, `child` | QEMU's command line, and QEMU as a child that ends with this process |
//! | `qmp` | the protocol of its monitor, with deadlines |
//! | `worker` | the one thread that waits for QEMU |
//! | `machine` | the machine as the event loop sees it |
//! | `targets`, `balloon_history` | recent targets; recent sizes of the balloon |
//! | `balloon`, `ram`, `images` | the balloon and the guest's statistics; where RAM and images are |
//! | `process` | which process the machine is |
//! | `watch` | how far the frame table may be off |
//! | `original` | the settings that an attached machine had before |
//! | `run`, `attach` | a guest from its start to its end; a guest that another program started |

mod arguments;
mod attach;
mod balloon;
mod balloon_history;
mod child;
mod images;
mod machine;
mod original;
mod process;
pub mod qmp;
mod ram;
mod run;
mod targets;
mod watch;
mod worker;

pub use arguments::Accelerator;
pub use attach::{AttachSpec, attach};
pub use child::QEMU_VARIABLE;
pub use run::run;

use super::inputs::InputError;
use super::launch::LaunchRefused;
use crate::boot::kernel::LoadError;
use crate::control::Control;
use crate::disk_cache::DiskCache;
use crate::events::event_loop::{EventLoop, EventLoopError};
use crate::events::signals::Signals;
use crate::link::NotAdmitted;
use crate::memory::{Comparison, MemoryError, Pagemap};
use crate::reconciler::{Reconciler, Watch};
use crate::vcpu::End;
use machine::QemuMachine;
use process::ProcessError;
use protocol::frames::{FrameTable, LayoutError, Region};
use protocol::sync::MutexExt;
use qmp::QmpError;
use ram::{Mapped, RamError, RamLocation};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::EventFd;

/// Why a guest does not run on QEMU, or is not attached.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// No kernel was named.
    #[error("No kernel: give --kernel FILE")]
    NoKernel,
    /// The engine lacks something.
    #[error("The engine qemu does not support {what}: {why}")]
    Unsupported {
        /// The flag.
        what: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// Its limits do not allow it.
    #[error(transparent)]
    Refused(#[from] LaunchRefused),
    /// Kernel or initrd.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// RAM to load them into.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A file or an image that the spec names.
    #[error(transparent)]
    Input(#[from] InputError),
    /// QEMU cannot be started.
    #[error("Cannot start {} (install qemu-system-x86, or name it in {QEMU_VARIABLE})", program.display())]
    Spawn {
        /// The program.
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
    /// The balancer does not admit it.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// The system refused a thread or a descriptor.
    #[error("The system refused a thread or a descriptor")]
    System(#[from] io::Error),
    /// The event loop broke.
    #[error(transparent)]
    Events(#[from] EventLoopError),
}

/// The frame table of a machine, the thread that keeps it true as far as possible, and why the frames of RAM cannot be
/// scanned if they cannot.
struct Frames {
    table: Arc<FrameTable>,
    reconciler: Reconciler,
    ram_unseen: Option<String>,
}

impl Frames {
    fn of(
        ram: &RamLocation,
        images: &[(Region, u64)],
        pid: i32,
        disks: DiskCache,
    ) -> Result<Self, QemuError> {
        let ram_unseen = match (&ram.slots, ram.mapped_in(pid)?) {
            (Err(why), _) => Some(why.clone()),
            (_, Mapped::Otherwise(what)) => {
                Some(format!("it is not private anonymous memory ({what}): mapped memory is not held memory"))
            }
            (_, Mapped::No) => Some(format!("process {pid} does not map it")),
            (Ok(_), Mapped::Private) => None,
        };
        if let Some(why) = &ram_unseen {
            tracing::warn!(why, "The frames of guest RAM cannot be scanned: all of them are unknown");
        }
        let images_only = images.iter().map(|(region, _)| *region);
        let regions: Vec<Region> = ram.regions().into_iter().chain(images_only).collect();
        let table = Arc::new(FrameTable::new(&regions)?);
        table.set_residency_only();
        let (mut slots, watch): (Vec<_>, Box<dyn Watch>) = match (&ram.slots, &ram_unseen) {
            (Ok(slots), None) => (slots.clone(), Box::new(watch::MachineMemory::open(pid)?)),
            _ => (vec![], Box::new(watch::Unseen)),
        };
        slots.extend_from_slice(images);
        let comparison = Comparison::of_slots(slots, Arc::clone(&table), Pagemap::of_process(pid)?);
        let reconciler = Reconciler::watching(comparison, watch, Arc::clone(&table), disks)?;
        Ok(Self { table, reconciler, ram_unseen })
    }
}

/// A signal that came while a guest was started is the reason of the failure, whatever it broke.
fn or_signal(error: QemuError, signals: &Signals) -> QemuError {
    signals.take().map_or(error, |number| NotAdmitted::Signal(number).into())
}

/// Serves a guest until it ends, and calls `at_end` before the balancer learns of the end; also if the guest cannot
/// be served.
fn serve(
    control: Control<QemuMachine>,
    signals: Signals,
    ends: (Receiver<End>, EventFd),
    at_end: impl FnOnce(Result<End, QemuError>, &QemuMachine) -> Result<End, QemuError>,
) -> Result<End, QemuError> {
    let control = Arc::new(Mutex::new(control));
    let events = EventLoop::new([Box::new(Arc::clone(&control)) as _, Box::new(signals) as _], ends);
    let end = events.and_then(|mut events| events.run());
    let control = control.acquire();
    let end = at_end(end.map_err(QemuError::from), control.machine())?;
    control.send_end(&end.to_string());
    Ok(end)
}
