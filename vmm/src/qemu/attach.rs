//! A guest on a QEMU that somebody else started: taken under a balancer without a restart, and left as it was found.

use super::balloon::BalloonObject;
use super::found::Found;
use super::operator::Operator;
use super::qmp::wire::{QueryBalloon, QueryCpus};
use super::qmp::{Qmp, QmpError};
use super::ram::RamPlace;
use super::session::{Parts, Session};
use super::{QemuError, frames, or_signal, process, register, serve};
use crate::disk_cache::DiskCache;
use crate::events::signals::Signals;
use crate::link::Beside;
use crate::machine::{self, build};
use crate::own_objects::fds_expected;
use crate::spec::name;
use crate::vcpu::End;
use clap::Args;
use protocol::limits::LimitsPatch;
use protocol::message::{Machine, PROTOCOL_VERSION, Register};
use protocol::path::ContainerPath;
use protocol::place::Place;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What a kernel takes that nobody here has seen: as much as the largest of Debian's.
const KERNEL_BYTES: u64 = 64 << 20;
/// Threads of this process.
const THREADS: u32 = 4;
/// What is said on standard output once the balancer has the guest.
const READY: &str = "attached";

/// A guest that runs on a QEMU, to be taken under the balancer as it is.
#[derive(Debug, Clone, Args)]
pub struct AttachSpec {
    /// Unix socket of a QMP monitor that nobody else uses: -qmp unix:/run/a.qmp,server=on,wait=off
    #[arg(long, value_name = "SOCKET")]
    pub qmp: PathBuf,

    /// Name of the guest, unique on its balancer
    #[arg(long, value_parser = name)]
    pub name: String,

    /// Container that the guest is attached to; made if there is none [default: /NAME]
    #[arg(long, value_name = "PATH")]
    pub container: Option<ContainerPath>,

    /// Limits of that container, as for a guest that is started
    #[arg(long, value_name = "LIMIT", allow_negative_numbers = true)]
    pub container_limit: Option<LimitsPatch>,
}

/// Keeps a guest under the balancer until it ends, is detached, or this process is told to end.
///
/// # Errors
/// When the machine cannot be taken, or the balancer refuses it; it is left as it was found then.
pub fn attach(spec: &AttachSpec, place: Place) -> Result<End, QemuError> {
    let (end, ends) = mpsc::channel();
    let signals = machine::signals(&end)?;
    let Asked { qmp, ram, pid, cpus, actual_bytes, balloon } =
        ask(spec, &signals).map_err(|error| or_signal(error, &signals))?;
    let has_balloon = balloon.is_some();
    let deflates_on_oom = balloon.as_ref().is_some_and(BalloonObject::deflates_on_oom);
    let (table, reconciler, ram_unseen) = frames(&ram, &[], pid, DiskCache::default())?;
    let wake = EventFd::new(EFD_NONBLOCK)?;
    let end = (end, wake.try_clone()?);
    let interval_s = balloon.as_ref().map_or(0, BalloonObject::found_interval_s);
    // Up to here nothing was changed; from here on all that goes wrong ends with `leave`.
    let found = Found::attached(&place, pid, ram.bytes, (actual_bytes, interval_s));
    let operator = Operator::start(qmp, balloon, found, false, None)?;
    let mut session = Session::new(Parts {
        operator,
        reconciler,
        table: table.clone(),
        ram_bytes: ram.bytes,
        actual_bytes,
        machine_pid: pid,
        deflates_on_oom,
        port: None,
        end,
    });
    let container = spec
        .container
        .clone()
        .unwrap_or_else(|| format!("/{}", spec.name).parse().expect("a guest's name is a name in a path"));
    let needed = KERNEL_BYTES + ram.bytes / build::MEMMAP_DIVISOR + build::LIVING_BYTES;
    let about = Register {
        protocol_version: PROTOCOL_VERSION,
        name: spec.name.clone(),
        container,
        may_charge: vec![],
        charge_to: None,
        owners: vec![],
        limits: spec.container_limit.clone(),
        images: vec![],
        merge: false,
        ram_bytes: ram.bytes,
        floor_bytes: needed.min(ram.bytes),
        cpus,
        devices: 0,
        fds: fds_expected(),
        threads: THREADS,
        engine: "qemu".into(),
        machine: Some(Machine { pid, attached: true }),
        comes_back: false,
        wait: false,
        has_balloon,
        ram_unseen,
        balloon: session.balloon(),
    };
    let beside = Beside { signals: &signals, wait: None, machine: None };
    let registered = register(&mut session, &table, place, about, &beside);
    if let Err(error) = registered {
        session.leave();
        return Err(error);
    }
    // Whoever started this process reads it; nobody may.
    let _ = writeln!(std::io::stdout(), "{READY}");
    serve(session, vec![Box::new(signals)], (ends, wake), |end, session| {
        // By a machine that is gone, or was let go.
        if !matches!(end, Ok(End::Machine(_))) {
            session.leave();
        }
        end
    })
}

/// What QEMU says of a machine that is to be taken.
struct Asked {
    qmp: Qmp,
    ram: RamPlace,
    pid: i32,
    cpus: u32,
    actual_bytes: u64,
    balloon: Option<BalloonObject>,
}

/// Asks it, and changes nothing.
fn ask(spec: &AttachSpec, signals: &Signals) -> Result<Asked, QemuError> {
    let mut qmp = Qmp::connect(&spec.qmp, Some(signals.ready()?))?;
    let ram = RamPlace::ask(&mut qmp)?;
    let pid = process::find(qmp.stream(), &ram)?;
    let cpus = u32::try_from(qmp.call(&QueryCpus {})?.len()).unwrap_or(u32::MAX);
    let actual_bytes = match qmp.call(&QueryBalloon {}) {
        Ok(balloon) => balloon.actual.min(ram.bytes),
        Err(QmpError::Refused { .. }) => ram.bytes,
        Err(error) => return Err(error.into()),
    };
    let balloon = BalloonObject::find(&mut qmp)?;
    Ok(Asked { qmp, ram, pid, cpus, actual_bytes, balloon })
}
