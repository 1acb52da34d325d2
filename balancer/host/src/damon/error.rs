//! Why working sets are not known.

use std::io;
use std::path::PathBuf;

/// Why the kernel does not tell what guests use.
#[derive(Debug, thiserror::Error)]
pub enum DamonError {
    /// A kernel without it.
    #[error("This kernel has no DAMON that files control (CONFIG_DAMON_SYSFS)")]
    Missing,
    /// Somebody else uses it.
    #[error("DAMON is in use: nr_kdamonds is {found}, and must be 0")]
    InUse {
        /// What was found.
        found: String,
    },
    /// It cannot watch processes.
    #[error("DAMON watches no processes here (CONFIG_DAMON_VADDR): it knows {known}")]
    NoProcesses {
        /// What it can watch.
        known: String,
    },
    /// A figure is no number.
    #[error("{name} is {text:?}, which is no number")]
    Strange {
        /// The file.
        name: String,
        /// What it holds.
        text: String,
    },
    /// The kernel refused.
    #[error("Cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}
