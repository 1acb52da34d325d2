//! Why a guest's RAM is not merged.

use super::PROCESSES_MAX;
use std::io;

/// Why the kernel cannot merge pages for guests, or why it is not known for whom else it does.
#[derive(Debug, thiserror::Error)]
pub enum KsmError {
    /// A kernel without KSM.
    #[error("This kernel has no KSM: there is no /sys/kernel/mm/ksm/{name}")]
    Missing {
        /// The setting.
        name: &'static str,
    },
    /// It is off, and whoever runs the host decides about that.
    #[error(
        "KSM does not run on this host: /sys/kernel/mm/ksm/run is {run} and must be 1. It merges for every process of the \
         host that asks, so Ballast does not switch it on by itself"
    )]
    Off {
        /// The setting's value.
        run: u64,
    },
    /// Pages of zeros would vanish from the kernel's figures of a process.
    #[error(
        "/sys/kernel/mm/ksm/use_zero_pages is on and must be 0: pages of zeros would leave a guest without being given back"
    )]
    ZeroPages,
    /// A setting is no number.
    #[error("/sys/kernel/mm/ksm/{name} is no number")]
    Strange {
        /// The setting.
        name: &'static str,
    },
    /// A setting cannot be read.
    #[error("Cannot read /sys/kernel/mm/ksm/{name}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The processes cannot be listed.
    #[error("Cannot list the processes of this host")]
    List(#[source] io::Error),
    /// More processes than are looked at.
    #[error("There are more than {PROCESSES_MAX} processes on this host, more than are looked at")]
    Many,
    /// A process cannot be looked at.
    #[error(
        "Whether pages of process {pid} are merged too cannot be told, which takes a balancer that may look at all processes, as root may"
    )]
    Unreadable {
        /// The process.
        pid: i32,
        /// The system's answer.
        source: io::Error,
    },
    /// It takes too long.
    #[error("The processes of this host could not be looked at within {waited_ms} ms")]
    Slow {
        /// How long was waited, milliseconds.
        waited_ms: u128,
    },
}
