//! Why working sets are not known.

use std::io;
use std::path::PathBuf;

/// Why the memory that guests use is not known.
#[derive(Debug, thiserror::Error)]
pub enum DamonError {
    /// A kernel without it.
    #[error("This kernel has no DAMON that files control (CONFIG_DAMON_SYSFS)")]
    Missing,
    /// Another program uses it.
    #[error("DAMON is in use: nr_kdamonds is {found}, and must be 0")]
    InUse {
        /// The value that was found.
        found: String,
    },
    /// It cannot watch processes.
    #[error("DAMON cannot watch processes here (CONFIG_DAMON_VADDR): it knows {known}")]
    NoProcesses {
        /// The kinds of targets that it knows.
        known: String,
    },
    /// A figure is not a number.
    #[error("{name} is {text:?}, which is not a number")]
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
