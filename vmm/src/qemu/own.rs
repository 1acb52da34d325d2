//! A guest on a QEMU of this process, from its spec to its end.
//!
//! ```text
//!   files checked, disks locked -> QEMU starts, stopped -> RAM found, frame table -> registered -> target -> it runs -> End
//! ```

use super::arguments::Accelerator;
use super::balloon::BalloonObject;
use super::child::{Descriptors, Qemu, ended, program};
use super::found::Found;
use super::images::SharedImages;
use super::operator::Operator;
use super::qmp::Qmp;
use super::qmp::client::GREETING_DEADLINE;
use super::ram::RamPlace;
use super::session::{Parts, Session};
use super::{QemuError, frames, or_signal, register, serve};
use crate::boot::kernel;
use crate::disk_cache::DiskCache;
use crate::events::channel::Listening;
use crate::events::port::Port;
use crate::events::signals::Signals;
use crate::events::stdin::RawTerminal;
use crate::link::{Beside, NotTaken};
use crate::machine::{self, BuildError, build};
use crate::memory::Ram;
use crate::own_objects::fds_expected;
use crate::spec::{Console, GuestSpec};
use crate::vcpu::End;
use devices::virtio::block::Block;
use protocol::bytes::Human;
use protocol::frames::Region;
use protocol::limits::Limits;
use protocol::message::QEMU_BYTES_ASSUMED;
use protocol::message::{Machine, PROTOCOL_VERSION, Register};
use protocol::objects::ObjectCounts;
use protocol::path::ContainerPath;
use protocol::place::Place;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Descriptors and threads of QEMU beside one thread per virtual CPU: told before the kernel can be asked.
const FDS: u32 = 32;
const THREADS: u32 = 8;

/// Runs a guest until it ends.
///
/// # Errors
/// When anything that it needs is missing, or the balancer refuses it; nothing is left behind then.
pub fn run(spec: &GuestSpec, accelerator: Accelerator, place: Option<Place>) -> Result<End, QemuError> {
    refuse(spec)?;
    let name = spec.name.clone().unwrap_or_else(|| format!("guest-{}", std::process::id()));
    let container = spec.container.clone().unwrap_or_else(|| {
        format!("/{name}").parse::<ContainerPath>().expect("a guest's name is a name in a path")
    });
    let (end, ends) = mpsc::channel();
    // Before any thread starts, so that all inherit the mask.
    let signals = machine::signals(&end)?;
    let images = SharedImages::open(spec, &container, place.as_ref())?;
    let floor_bytes = floor(spec, images.bytes())?;
    let opened = spec.disks.iter().map(build::open_disk).collect::<Result<Vec<_>, _>>()?;
    // The devices are QEMU's; ours hold the locks, and the first one's counter gets what all of them move.
    let (locks, files): (Vec<Block>, Vec<_>) = opened.into_iter().unzip();
    let moved = locks.first().map(Block::moved_bytes);
    let channel = spec.channel.as_deref().map(|path| {
        Listening::new(path).map_err(|source| BuildError::File { what: "channel", path: path.into(), source })
    });
    let channel = channel.transpose()?;
    let (monitor, their_monitor) = UnixStream::pair()?;
    let port = if spec.may_charge.is_empty() { None } else { Some(UnixStream::pair()?) };
    let descriptors = Descriptors {
        monitor: their_monitor.as_raw_fd(),
        channel: channel.as_ref().map(Listening::fd),
        port: port.as_ref().map(|(_, theirs)| theirs.as_raw_fd()),
        images: images.descriptors(),
    };
    // Put back when this process ends, even if QEMU could not.
    let _terminal = matches!(spec.console, None | Some(Console::Stdio)).then(RawTerminal::enter);
    let (mut qemu, devices) = Qemu::start(spec, &name, accelerator, descriptors, &images)
        .map_err(|source| QemuError::Spawn { program: program(), source })?;
    drop(their_monitor);
    let port = port.map(|(ours, _)| Port::over(ours)).transpose()?;

    let Asked { qmp, balloon, ram, image_slots } =
        ask(monitor, &mut qemu, &images, &signals).map_err(|error| or_signal(error, &signals))?;
    let has_balloon = balloon.is_some();
    let pid = qemu.pid();
    let (table, reconciler, ram_unseen) = frames(&ram, &image_slots, pid, DiskCache::new(files))?;
    let wake = EventFd::new(EFD_NONBLOCK)?;
    let operator = Operator::start(qmp, balloon, Found::own(ram.bytes), true, moved)?;
    let mut session = Session::new(Parts {
        operator,
        reconciler,
        table: table.clone(),
        ram_bytes: ram.bytes,
        actual_bytes: ram.bytes,
        machine_pid: pid,
        deflates_on_oom: true,
        port,
        end: (end, wake.try_clone()?),
    });
    let about = Register {
        protocol_version: PROTOCOL_VERSION,
        name,
        container,
        may_charge: spec.may_charge.clone(),
        charge_to: None,
        owners: vec![],
        limits: spec.container_limit.clone(),
        images: images.told(&image_slots),
        merge: false,
        ram_bytes: ram.bytes,
        floor_bytes: floor_bytes.min(ram.bytes),
        cpus: spec.cpu_count().into(),
        devices,
        fds: fds_expected() + FDS,
        threads: THREADS + u32::from(spec.cpu_count()),
        engine: "qemu".into(),
        machine: Some(Machine { pid, attached: false }),
        comes_back: false,
        wait: spec.wait.is_some(),
        has_balloon,
        ram_unseen,
        balloon: session.balloon(),
    };
    let limits = spec.container_limit.as_ref().map(|patch| Limits::default().patched(patch));
    check_floor(limits.as_ref(), about.floor_bytes)?;
    match place {
        Some(place) => {
            let machine = qemu.end_descriptor();
            let beside = Beside { signals: &signals, wait: spec.wait, machine: machine.as_ref() };
            match register(&mut session, &table, place, about, &beside) {
                Err(QemuError::NotTaken(NotTaken::MachineEnded)) => {
                    let status = qemu.wait();
                    let why = status.map_or("QEMU ended".into(), |status| ended(status, &qemu.last_words()));
                    return Ok(End::Machine(why));
                }
                registered => registered?,
            }
        }
        None => limit_alone(&mut session, limits.as_ref(), &about)?,
    }
    session.start();
    let end = serve(session, vec![Box::new(signals)], (ends, wake), |end, session| {
        let end = match end {
            // The monitor is gone, and so is QEMU.
            Ok(End::Machine(reason)) => Ok(of_shutdown(session.shutdown()).unwrap_or_else(|| {
                End::Machine(qemu.wait().map_or(reason, |status| ended(status, &qemu.last_words())))
            })),
            end => end,
        };
        qemu.kill();
        end
    })?;
    // Locks and sockets go when nobody uses them any more.
    drop((locks, channel, images));
    Ok(end)
}

/// What QEMU says of the machine that it made.
struct Asked {
    qmp: Qmp,
    balloon: Option<BalloonObject>,
    ram: RamPlace,
    image_slots: Vec<(Region, u64)>,
}

/// Waits until QEMU made the machine, and asks where things are; until a signal comes.
fn ask(
    monitor: UnixStream,
    qemu: &mut Qemu,
    images: &SharedImages,
    signals: &Signals,
) -> Result<Asked, QemuError> {
    let mut qmp = match Qmp::over(monitor, GREETING_DEADLINE, Some(signals.ready()?)) {
        Ok(qmp) => qmp,
        Err(error) if error.is_end() => {
            let status = qemu.wait().ok_or(error)?;
            return Err(QemuError::Ended(ended(status, &qemu.last_words())));
        }
        Err(error) => return Err(error.into()),
    };
    let balloon = BalloonObject::find(&mut qmp)?;
    let ram = RamPlace::ask(&mut qmp)?;
    let image_slots = images.locate(&mut qmp)?;
    Ok(Asked { qmp, balloon, ram, image_slots })
}

/// What this engine cannot do is said before anything is made.
fn refuse(spec: &GuestSpec) -> Result<(), QemuError> {
    if spec.merge {
        let why = "QEMU offers all of its RAM to the kernel from its start, before a balancer knows with whom it would be shared";
        return Err(QemuError::CannotDo { what: "--merge", why });
    }
    Ok(())
}

/// What the guest needs to live, by its kernel and initrd, which are checked as the other engine checks them: into RAM of our
/// own that is gone at the end.
fn floor(spec: &GuestSpec, image_bytes: u64) -> Result<u64, QemuError> {
    let ram = Ram::new(spec.memory_bytes())?;
    let loaded = kernel::load_kernel(ram.guest(), spec.kernel.as_deref().ok_or(QemuError::NoKernel)?)?;
    let initrd =
        spec.initrd.as_deref().map(|path| kernel::load_initrd(ram.guest(), path, loaded.end)).transpose()?;
    Ok(build::floor_bytes(&loaded, initrd.map_or(0, |(_, bytes)| bytes), ram.bytes(), image_bytes))
}

fn check_floor(limits: Option<&Limits>, floor_bytes: u64) -> Result<(), QemuError> {
    let ceiling = limits.and_then(Limits::ceiling_bytes);
    let needed = floor_bytes.saturating_add(QEMU_BYTES_ASSUMED);
    let Some(ceiling) = ceiling.filter(|ceiling| *ceiling < needed) else { return Ok(()) };
    let (ceiling, floor, beside) = (Human(ceiling), Human(floor_bytes), Human(QEMU_BYTES_ASSUMED));
    Err(QemuError::Refused(format!(
        "container-limit is {ceiling}, but this guest needs at least {floor} to boot and {beside} for its QEMU"
    )))
}

/// Without a balancer the limit of the launch is all there is.
fn limit_alone(session: &mut Session, limits: Option<&Limits>, about: &Register) -> Result<(), QemuError> {
    let Some(limits) = limits else { return Ok(()) };
    let objects = ObjectCounts {
        vcpus: about.cpus.into(),
        guests: 1,
        devices: about.devices.into(),
        fds: about.fds.into(),
        threads: about.threads.into(),
    };
    if let Some((kind, max)) = objects.beyond(limits).next() {
        let (key, needed) = (kind.key(), objects.of(kind));
        return Err(QemuError::Refused(format!("{key} is {max}, but this guest needs {needed}")));
    }
    if let Some(ceiling) = limits.ceiling_bytes() {
        session.limit_alone(ceiling, about.floor_bytes)?;
    }
    Ok(())
}

/// What the guest came to, by QEMU's word (`ShutdownCause` in qapi/run-state.json); `None` if the guest had no part in it.
fn of_shutdown(reason: Option<&str>) -> Option<End> {
    match reason? {
        "guest-shutdown" => Some(End::PowerOff),
        // A triple fault is one for QEMU as well.
        "guest-reset" => Some(End::Reset),
        "guest-panic" => Some(End::Crash),
        _ => None,
    }
}
