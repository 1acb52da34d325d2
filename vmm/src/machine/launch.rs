//! Names and limits of a guest at its launch, whichever hypervisor runs it.

use crate::spec::GuestSpec;
use protocol::bytes::Human;
use protocol::limits::Limits;
use protocol::message::Register;
use protocol::objects::ObjectCounts;
use protocol::path::ContainerPath;

/// Why a guest is not launched: its limits do not allow it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LaunchRefused(String);

/// The name of a guest: its own, or `guest-PID`.
pub(super) fn guest_name(spec: &GuestSpec) -> String {
    spec.name.clone().unwrap_or_else(|| format!("guest-{}", std::process::id()))
}

/// The container of a guest: the one that was named, or `/NAME`.
pub(super) fn container(named: Option<&ContainerPath>, name: &str) -> ContainerPath {
    named.cloned().unwrap_or_else(|| format!("/{name}").parse().expect("a guest's name is a name in a path"))
}

/// The limits of the guest's container as its spec gives them; `None` without any.
pub(super) fn limits(spec: &GuestSpec) -> Option<Limits> {
    spec.container_limit.as_ref().map(|patch| Limits::default().patched(patch))
}

/// Refuses a guest whose limit is below what it needs to boot, with the memory of its QEMU if it has one.
pub(super) fn check_floor(
    limits: Option<&Limits>,
    floor_bytes: u64,
    qemu_bytes: Option<u64>,
) -> Result<(), LaunchRefused> {
    let needed = floor_bytes.saturating_add(qemu_bytes.unwrap_or(0));
    match limits.and_then(Limits::ceiling_bytes).filter(|ceiling| *ceiling < needed) {
        None => Ok(()),
        Some(ceiling) => {
            let for_qemu = qemu_bytes.map(|bytes| format!(" and {} for its QEMU", Human(bytes)));
            Err(LaunchRefused(format!(
                "container-limit is {}, but this guest needs at least {} to boot{}",
                Human(ceiling),
                Human(floor_bytes),
                for_qemu.unwrap_or_default()
            )))
        }
    }
}

/// Refuses a guest that has more kernel objects than its limits allow, where no balancer does.
pub(super) fn check_objects(limits: Option<&Limits>, guest: &Register) -> Result<(), LaunchRefused> {
    let objects = ObjectCounts {
        vcpus: guest.cpus.into(),
        guests: 1,
        devices: guest.devices.into(),
        fds: guest.fds.into(),
        threads: guest.threads.into(),
    };
    match limits.and_then(|limits| objects.beyond(limits).next()) {
        None => Ok(()),
        Some((kind, max)) => {
            let (key, needed) = (kind.key(), objects.of(kind));
            Err(LaunchRefused(format!("{key} is {max}, but this guest needs {needed}")))
        }
    }
}
