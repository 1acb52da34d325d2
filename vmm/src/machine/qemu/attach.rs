//! A guest on a QEMU that another program started: it comes under a balancer without a restart, and gets its original
//! settings back when it is detached.

use super::balloon::BalloonObject;
use super::machine::{Parts, QemuMachine};
use super::original::Original;
use super::qmp::wire::{QueryBalloon, QueryCpus};
use super::qmp::{Deadlines, Qmp, QmpError};
use super::ram::RamLocation;
use super::worker::{QmpWorker, Times};
use super::{Frames, QemuError, or_signal, process, serve};
use crate::control::{Control, Machine};
use crate::disk_cache::DiskCache;
use crate::events::signals::Signals;
use crate::link::Interrupts;
use crate::machine::{floor, launch};
use crate::objects::fds_expected;
use crate::spec::name;
use crate::vcpu::End;
use clap::Args;
use protocol::engine::Engine;
use protocol::limits::LimitsPatch;
use protocol::message::{MachineProcess, Register};
use protocol::path::ContainerPath;
use protocol::run_dir::RunDir;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Threads of this process.
const THREADS: u32 = 4;
/// The line on standard output once the balancer has the guest.
const READY: &str = "attached";

/// A guest that runs on a QEMU already, and comes under the balancer as it is.
#[derive(Debug, Clone, Args)]
pub struct AttachSpec {
    /// Unix socket of a QMP monitor that no other program uses: -qmp unix:/run/a.qmp,server=on,wait=off
    #[arg(long, value_name = "SOCKET")]
    pub qmp: PathBuf,

    /// Name of the guest, unique on its balancer
    #[arg(long, value_parser = name)]
    pub name: String,

    /// Container of the guest; created if it does not exist [default: /NAME]
    #[arg(long, value_name = "PATH")]
    pub container: Option<ContainerPath>,

    /// Limits of that container, as for a guest that vmm starts
    #[arg(long, value_name = "LIMIT", allow_negative_numbers = true)]
    pub container_limit: Option<LimitsPatch>,
}

/// Keeps a guest under the balancer until it ends, is detached, or a signal ends this process.
///
/// # Errors
/// When the machine cannot be attached, or the balancer refuses it; it has its original settings then.
pub fn attach(spec: &AttachSpec, run_dir: RunDir) -> Result<End, QemuError> {
    let (end, ends) = mpsc::channel();
    let signals = Signals::new(end.clone())?;
    let Answers { qmp, ram, pid, cpus, actual_bytes, balloon } =
        ask(spec, &signals).map_err(|error| or_signal(error, &signals))?;
    let Frames { table, reconciler, ram_unseen } = Frames::of(&ram, &[], pid, DiskCache::default())?;
    let wake = EventFd::new(EFD_NONBLOCK)?;
    let has_balloon = balloon.is_some();
    let deflates_on_oom = balloon.as_ref().is_some_and(BalloonObject::deflates_on_oom);
    let interval_s = balloon.as_ref().map_or(0, BalloonObject::original_interval_s);
    // Up to here nothing was changed; from here on a failure restores the original settings.
    let original = Original::attached(&run_dir, pid, ram.bytes, (actual_bytes, interval_s));
    let machine = QemuMachine::new(Parts {
        worker: QmpWorker::start(qmp, balloon, original, false, None, Times::default())?,
        table: Arc::clone(&table),
        ram_bytes: ram.bytes,
        actual_bytes,
        pid,
        deflates_on_oom,
        end: (end, wake.try_clone()?),
    });
    let register = Register {
        limits: spec.container_limit.clone(),
        floor_bytes: floor::unknown_floor_bytes(ram.bytes),
        cpus,
        fds: fds_expected(),
        threads: THREADS,
        engine: Engine::Qemu,
        machine: Some(MachineProcess { pid, attached: true }),
        has_balloon,
        ram_unseen,
        balloon: machine.balloon(),
        ..Register::of(spec.name.clone(), launch::container(spec.container.as_ref(), &spec.name), ram.bytes)
    };
    let mut control = Control::new(machine, table, reconciler);
    let interrupts = Interrupts { signals: &signals, wait: None, machine: None };
    if let Err(error) = control.register(run_dir, register, &interrupts) {
        control.machine().detach_now();
        return Err(error.into());
    }
    // The program that started this process reads it, or no program does.
    let _ = writeln!(std::io::stdout(), "{READY}");
    serve(control, signals, (ends, wake), |end, machine| {
        // Not for a machine that is gone, or was detached.
        if !matches!(end, Ok(End::Machine(_))) {
            machine.detach_now();
        }
        end
    })
}

/// QEMU's answers about a machine that is to be attached.
struct Answers {
    qmp: Qmp,
    ram: RamLocation,
    pid: i32,
    cpus: u32,
    actual_bytes: u64,
    balloon: Option<BalloonObject>,
}

/// Asks QEMU, and changes nothing.
fn ask(spec: &AttachSpec, signals: &Signals) -> Result<Answers, QemuError> {
    let mut qmp = Qmp::connect(&spec.qmp, Deadlines::default(), Some(signals.ready()?))?;
    let ram = RamLocation::ask(&mut qmp)?;
    let pid = process::find(qmp.stream(), &ram)?;
    let cpus = u32::try_from(qmp.call(&QueryCpus {})?.len()).unwrap_or(u32::MAX);
    let actual_bytes = match qmp.call(&QueryBalloon {}) {
        Ok(balloon) => balloon.actual.min(ram.bytes),
        Err(QmpError::Refused { .. }) => ram.bytes,
        Err(error) => return Err(error.into()),
    };
    let balloon = BalloonObject::find(&mut qmp)?;
    Ok(Answers { qmp, ram, pid, cpus, actual_bytes, balloon })
}
