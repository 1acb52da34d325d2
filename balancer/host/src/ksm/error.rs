//! Why a guest's RAM is not merged.

use super::PROCESSES_MAX;
use std::io;

/// Why the kernel cannot merge pages for guests, or why it is not known for which other processes it does.
#[derive(Debug, thiserror::Error)]
pub enum KsmError {
    /// A kernel without KSM.
    #[error("This kernel has no KSM: there is no /sys/kernel/mm/ksm/{name}")]
    Missing {
        /// The setting.
        name: &'static str,
    },
    /// It is off, and the operator of the host decides about that.
    #[error(
        "KSM does not run on this host: /sys/kernel/mm/ksm/run is {run} and must be 1. It merges for every process of \
         the host that asks, so Ballast does not switch it on by itself"
    )]
    Off {
        /// The setting's value.
        run: u64,
    },
    /// Pages of zeros would vanish from the kernel's figures of a process.
    #[error(
        "/sys/kernel/mm/ksm/use_zero_pages is on and must be 0: pages of zeros would leave a guest without a release"
    )]
    ZeroPages,
    /// A setting is not a number.
    #[error("/sys/kernel/mm/ksm/{name} is not a number")]
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
    /// More processes than are scanned.
    #[error("There are more than {PROCESSES_MAX} processes on this host, the most that are scanned")]
    Many,
    /// A process cannot be scanned.
    #[error(
        "Cannot find out whether pages of process {pid} are merged too: that takes a balancer that may read all \
         processes, as root may"
    )]
    Unreadable {
        /// The process.
        pid: i32,
        /// The system's answer.
        source: io::Error,
    },
    /// It takes too long.
    #[error("The processes of this host could not be scanned within {waited_ms} ms")]
    Slow {
        /// The time limit, milliseconds.
        waited_ms: u128,
    },
}
