//! A guest on a QEMU of this process, from its spec to its end.
//!
//! ```text
//!   files checked, disks locked -> QEMU starts, paused -> RAM found, frame table -> registered -> target -> runs ->
//!   End
//! ```

use super::arguments::{Accelerator, kernel_line};
use super::balloon::BalloonObject;
use super::child::{Descriptors, Qemu, ended, program};
use super::images::SharedImages;
use super::machine::{Parts, QemuMachine};
use super::original::Original;
use super::qmp::{Deadlines, Qmp};
use super::ram::RamLocation;
use super::worker::{QmpWorker, Times};
use super::{Frames, QemuError, or_signal, serve};
use crate::boot::cmdline;
use crate::boot::kernel::{self, LoadError};
use crate::control::Control;
use crate::control::port::Port;
use crate::disk_cache::DiskCache;
use crate::events::channel::Listening;
use crate::events::signals::Signals;
use crate::events::stdin::RawTerminal;
use crate::link::{Interrupts, NotAdmitted};
use crate::machine::inputs::{open_channel, open_disk};
use crate::machine::{floor, launch};
use crate::memory::Ram;
use crate::objects::fds_expected;
use crate::spec::{Console, GuestSpec};
use crate::vcpu::End;
use devices::virtio::block::Block;
use protocol::engine::Engine;
use protocol::frames::Region;
use protocol::limits::Limits;
use protocol::message::{MachineProcess, QEMU_BYTES_ASSUMED, Register};
use protocol::run_dir::RunDir;
use rustix::process::Signal;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Descriptors and threads of QEMU in addition to one thread per virtual CPU: reported before the kernel can count
/// them.
const FDS: u32 = 32;
const THREADS: u32 = 8;

/// Runs a guest until it ends.
///
/// # Errors
/// When anything that it needs is missing, or the balancer refuses it; nothing is left behind then.
pub fn run(spec: &GuestSpec, accelerator: Accelerator, run_dir: Option<RunDir>) -> Result<End, QemuError> {
    check_supported(spec)?;
    let name = launch::guest_name(spec);
    let container = launch::container(spec.container.as_ref(), &name);
    let (end, ends) = mpsc::channel();
    // Before any thread starts, so that all inherit the mask.
    let signals = Signals::new(end.clone())?;
    let images = SharedImages::open(spec, &container, run_dir.as_ref())?;
    let floor_bytes = floor_bytes(spec, images.bytes())?;
    let opened = spec.disks.iter().map(open_disk).collect::<Result<Vec<_>, _>>()?;
    // The devices are QEMU's; ours hold the locks, and the counter of the first one counts for all of them.
    let (locks, files): (Vec<Block>, Vec<_>) = opened.into_iter().unzip();
    let moved = locks.first().map(Block::moved_bytes);
    let channel = open_channel(spec.channel.as_deref())?;
    // Restored when this process ends, even if QEMU could not.
    let terminal = matches!(spec.console, None | Some(Console::Stdio)).then(RawTerminal::enter);
    let Started { mut qemu, devices, monitor, port } =
        start(spec, &name, accelerator, channel.as_ref(), &images)?;
    let Answers { qmp, balloon, ram, image_slots } =
        ask(monitor, &mut qemu, &images, &signals).map_err(|error| or_signal(error, &signals))?;
    let Frames { table, reconciler, ram_unseen } =
        Frames::of(&ram, &image_slots, qemu.pid(), DiskCache::new(files))?;
    let register = Register {
        may_charge: spec.may_charge.clone(),
        limits: spec.container_limit.clone(),
        images: images.mapped(&image_slots),
        floor_bytes: floor_bytes.min(ram.bytes),
        cpus: spec.cpu_count().into(),
        devices,
        fds: fds_expected() + FDS,
        threads: THREADS + u32::from(spec.cpu_count()),
        engine: Engine::Qemu,
        machine: Some(MachineProcess { pid: qemu.pid(), attached: false }),
        wait: spec.wait.is_some(),
        has_balloon: balloon.is_some(),
        ram_unseen,
        ..Register::of(name, container, ram.bytes)
    };
    let wake = EventFd::new(EFD_NONBLOCK)?;
    let machine = QemuMachine::new(Parts {
        worker: QmpWorker::start(qmp, balloon, Original::own(ram.bytes), true, moved, Times::default())?,
        table: Arc::clone(&table),
        ram_bytes: ram.bytes,
        actual_bytes: ram.bytes,
        pid: qemu.pid(),
        deflates_on_oom: true,
        end: (end, wake.try_clone()?),
    });
    let mut control = Control::new(machine, table, reconciler).with_port(port);
    if let Some(end) = admit(&mut control, register, (spec, run_dir), &signals, &mut qemu)? {
        return Ok(end);
    }
    if let Some(terminal) = &terminal {
        terminal.give_to_guest();
    }
    control.machine().start();
    let end = serve(control, signals, (ends, wake), |end, machine| end_of(end, machine, &mut qemu))?;
    // Locks and sockets go when no process uses them any more.
    drop((locks, channel, images));
    Ok(end)
}

/// A QEMU that was started, and this process's ends of its sockets.
struct Started {
    qemu: Qemu,
    /// Number of its virtio devices.
    devices: u32,
    monitor: UnixStream,
    port: Option<Port>,
}

/// Starts QEMU, paused.
fn start(
    spec: &GuestSpec,
    name: &str,
    accelerator: Accelerator,
    channel: Option<&Listening>,
    images: &SharedImages,
) -> Result<Started, QemuError> {
    let (monitor, their_monitor) = UnixStream::pair()?;
    let port = if spec.may_charge.is_empty() { None } else { Some(UnixStream::pair()?) };
    let descriptors = Descriptors {
        monitor: their_monitor.as_raw_fd(),
        channel: channel.map(Listening::fd),
        port: port.as_ref().map(|(_, theirs)| theirs.as_raw_fd()),
        images: images.descriptors(),
    };
    let (qemu, devices) = Qemu::start(spec, name, accelerator, descriptors, images)
        .map_err(|source| QemuError::Spawn { program: program(), source })?;
    let port = port.map(|(ours, _)| Port::over(ours)).transpose()?;
    Ok(Started { qemu, devices, monitor, port })
}

/// QEMU's answers about the machine that it made.
struct Answers {
    qmp: Qmp,
    balloon: Option<BalloonObject>,
    ram: RamLocation,
    image_slots: Vec<(Region, u64)>,
}

/// Waits until QEMU made the machine, and asks where things are; until a signal comes.
fn ask(
    monitor: UnixStream,
    qemu: &mut Qemu,
    images: &SharedImages,
    signals: &Signals,
) -> Result<Answers, QemuError> {
    let mut qmp = match Qmp::over(monitor, Deadlines::of_child(), Some(signals.ready()?)) {
        Ok(qmp) => qmp,
        Err(error) if error.is_end() => {
            let status = qemu.wait().ok_or(error)?;
            return Err(QemuError::Ended(ended(status, &qemu.last_words())));
        }
        Err(error) => return Err(error.into()),
    };
    let balloon = BalloonObject::find(&mut qmp)?;
    let ram = RamLocation::ask(&mut qmp)?;
    let image_slots = images.locate(&mut qmp)?;
    Ok(Answers { qmp, balloon, ram, image_slots })
}

/// Registers the guest with a balancer, or applies its limit without one. Returns the end of a machine that ended
/// while it waited for memory.
fn admit(
    control: &mut Control<QemuMachine>,
    register: Register,
    (spec, run_dir): (&GuestSpec, Option<RunDir>),
    signals: &Signals,
    qemu: &mut Qemu,
) -> Result<Option<End>, QemuError> {
    let limits = launch::limits(spec);
    launch::check_floor(limits.as_ref(), register.floor_bytes, Some(QEMU_BYTES_ASSUMED))?;
    let Some(run_dir) = run_dir else {
        launch::check_objects(limits.as_ref(), &register)?;
        if let Some(ceiling) = limits.as_ref().and_then(Limits::ceiling_bytes) {
            control.limit_standalone(ceiling, register.floor_bytes)?;
        }
        return Ok(None);
    };
    let machine = qemu.end_descriptor();
    let interrupts = Interrupts { signals, wait: spec.wait, machine: machine.as_ref() };
    match control.register(run_dir, register, &interrupts) {
        Err(NotAdmitted::MachineEnded) => {
            let status = qemu.wait();
            let why = status.map_or("QEMU ended".into(), |status| ended(status, &qemu.last_words()));
            Ok(Some(End::Machine(why)))
        }
        registered => Ok(registered.map(|()| None)?),
    }
}

/// The end of the guest, by QEMU's own reason if there is one. QEMU is gone afterwards.
fn end_of(end: Result<End, QemuError>, machine: &QemuMachine, qemu: &mut Qemu) -> Result<End, QemuError> {
    let end = match end {
        // The monitor closed, and QEMU ended.
        Ok(End::Machine(reason)) => Ok(of_shutdown(machine.shutdown()).unwrap_or_else(|| {
            End::Machine(qemu.wait().map_or(reason, |status| ended(status, &qemu.last_words())))
        })),
        end => end,
    };
    qemu.kill();
    end
}

/// Refuses what cannot reach the guest on this engine, before anything is made.
fn check_supported(spec: &GuestSpec) -> Result<(), QemuError> {
    if spec.merge {
        let why = "QEMU offers all of its RAM to the kernel from its start, before a balancer knows which guests would \
                   share it";
        return Err(QemuError::Unsupported { what: "--merge", why });
    }
    cmdline::check(spec.kernel_words(), &kernel_line(spec)).map_err(LoadError::from)?;
    Ok(())
}

/// The floor of the guest, by its kernel and initrd, which are checked as on KVM: they are loaded into RAM of
/// this process, which is unmapped at the end.
fn floor_bytes(spec: &GuestSpec, image_bytes: u64) -> Result<u64, QemuError> {
    let ram = Ram::new(spec.memory_bytes())?;
    let kernel = kernel::load_kernel(ram.guest(), spec.kernel.as_deref().ok_or(QemuError::NoKernel)?)?;
    let initrd =
        spec.initrd.as_deref().map(|path| kernel::load_initrd(ram.guest(), path, kernel.end)).transpose()?;
    Ok(floor::floor_bytes(&kernel, initrd.map_or(0, |(_, bytes)| bytes), ram.bytes(), image_bytes))
}

/// The guest's end, from QEMU's reason (`ShutdownCause` in qapi/run-state.json); `None` if the guest did not cause it.
fn of_shutdown(reason: Option<&str>) -> Option<End> {
    match reason? {
        "guest-shutdown" => Some(End::PowerOff),
        // QEMU also calls a triple fault a reset.
        "guest-reset" => Some(End::Reset),
        "guest-panic" => Some(End::Crash),
        // The keys that end QEMU at its console: nothing else here tells it to quit.
        "host-qmp-quit" => Some(End::Signal(Signal::INT.as_raw())),
        _ => None,
    }
}
