//! Virtual CPUs: one thread each, which runs guest code and hands port and memory accesses to the buses.

pub mod gate;
pub mod images;
#[allow(unsafe_code)]
pub mod kick;
pub mod stores;

use crate::memory::images::lost_frames;
use devices::bus::{Action, Bus};
use gate::Gate;
use images::ImageExits;
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::thread::{Builder, JoinHandle};
use vmm_sys_util::eventfd::EventFd;

/// Why a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The guest powered itself off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest crashed so hard that the processor shut down (triple fault).
    Crash,
    /// This process was told to end.
    Signal(i32),
    /// It stored into its images without end; so many times.
    ImageStores(u64),
    /// KVM cannot go on.
    Kvm(String),
    /// The process that ran it ended by itself, or was detached.
    Machine(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PowerOff => f.write_str("It powered itself off"),
            Self::Reset => f.write_str("It asked for a reset"),
            Self::Crash => f.write_str("It crashed (triple fault)"),
            Self::Signal(number) => write!(f, "Its vmm was ended by signal {number}"),
            Self::ImageStores(count) => {
                write!(f, "It stored {count} times into images, which are read-only, and did not stop")
            }
            Self::Kvm(reason) | Self::Machine(reason) => f.write_str(reason),
        }
    }
}

/// What all vCPU threads share.
#[derive(Debug)]
pub struct Shared {
    /// Port I/O.
    pub pio: Bus,
    /// Memory-mapped I/O.
    pub mmio: Bus,
    /// What is read-only memory for the guest.
    pub images: ImageExits,
    /// Set before a kick: leave the guest for good.
    pub stop: AtomicBool,
    /// Where vCPUs stand still while it is closed.
    pub gate: Arc<Gate>,
    /// Told about the first end, with `wake` behind it.
    pub end: Sender<End>,
    /// Wakes the event loop.
    pub wake: EventFd,
}

/// Starts the thread of one vCPU.
///
/// # Errors
/// When the system has no thread for it.
pub fn start(index: u8, mut vcpu: VcpuFd, shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name(format!("vcpu{index}")).spawn(move || {
        // A device that panics must not leave a guest that hangs: the panic is this guest's end.
        let ran = panic::catch_unwind(AssertUnwindSafe(|| run(&mut vcpu, &shared)));
        if let Some(end) =
            ran.unwrap_or_else(|_| Some(End::Kvm(format!("The thread of vCPU {index} panicked"))))
        {
            // The receiver is the event loop; when it is gone the process is ending anyway.
            let _ = shared.end.send(end);
            let _ = shared.wake.write(1);
        }
    })
}

/// Runs guest code until the guest ends or the threads are stopped.
fn run(vcpu: &mut VcpuFd, shared: &Shared) -> Option<End> {
    let _armed = kick::arm(vcpu);
    let _passing = shared.gate.enter();
    loop {
        vcpu.set_kvm_immediate_exit(0);
        shared.gate.pass();
        if shared.stop.load(Relaxed) {
            return None;
        }
        let lost_before = lost_frames();
        match vcpu.run() {
            // The file behind an image may have got shorter: mended once, then the guest goes on.
            Ok(VcpuExit::MemoryFault { .. }) if shared.images.heal(lost_before) => {}
            Ok(exit) => {
                if let Some(end) = dispatch(exit, shared) {
                    return Some(end);
                }
            }
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(error) if error.errno() == libc::EFAULT && shared.images.heal(lost_before) => {}
            Err(error) => return Some(End::Kvm(format!("KVM_RUN failed: {error}"))),
        }
    }
}

/// Hands one exit to the device or part that serves it.
fn dispatch(exit: VcpuExit<'_>, shared: &Shared) -> Option<End> {
    let action = match exit {
        VcpuExit::IoIn(port, data) => {
            shared.pio.read(u64::from(port), data);
            Action::None
        }
        VcpuExit::IoOut(port, data) => shared.pio.write(u64::from(port), data).unwrap_or(Action::None),
        VcpuExit::MmioRead(address, data) if shared.images.covers(address) => {
            shared.images.read(address, data);
            Action::None
        }
        VcpuExit::MmioWrite(address, _) if shared.images.covers(address) => return shared.images.store(),
        VcpuExit::MmioRead(address, data) => {
            shared.mmio.read(address, data);
            Action::None
        }
        VcpuExit::MmioWrite(address, data) => shared.mmio.write(address, data).unwrap_or(Action::None),
        VcpuExit::Shutdown => return Some(End::Crash),
        VcpuExit::Intr | VcpuExit::IrqWindowOpen => Action::None,
        // The guest's fault or KVM's: either way this guest cannot go on, and no other guest is concerned.
        other => return Some(End::Kvm(format!("KVM cannot go on: {other:?}"))),
    };
    match action {
        Action::None => None,
        Action::Reset => Some(End::Reset),
        Action::PowerOff => Some(End::PowerOff),
    }
}
