//! Merging of equal pages by the kernel (KSM), and the processes that take part.
//!
//! Merging of guests (`merge = true`) needs this: a study of sharing compares the pool with it, and hosts without
//! images get some sharing by it. It is off by default, and needs root.
//!
//! KSM has neither groups nor salts: every page of every process that asked for it is merged with every other one,
//! host-wide. So a guest may ask for it only if no process outside its trust domain has, and that is checked here:
//! [`Ksm::mergeable`] scans all processes, by one line each where the kernel has it (`ksm_mergeable` of
//! `/proc/PID/ksm_stat`, as in 6.18), otherwise by the flags of every mapping. Reading another process's files may
//! block, so none of this happens under a lock or on the thread that serves.
//!
//! Paths are those of `Documentation/admin-guide/mm/ksm.rst` and `Documentation/filesystems/proc.rst`.

mod error;
mod processes;

pub use error::KsmError;
pub use processes::{Mergeable, PROCESSES_MAX};

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Kernel memory for each page that is scanned, bytes: `struct ksm_rmap_item` on 64-bit machines (mm/ksm.c).
const RMAP_ITEM_BYTES: u64 = 64;

/// The files of KSM.
#[derive(Debug, Clone)]
pub struct Ksm {
    proc: PathBuf,
    settings: PathBuf,
}

/// Merging of one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Pages that are merged with an equal page.
    pub merging_pages: u64,
    /// The memory that this saves minus its cost, as the kernel counts it, bytes.
    pub profit_bytes: i64,
    /// Its cost in kernel memory, bytes.
    pub cost_bytes: u64,
}

impl Default for Ksm {
    fn default() -> Self {
        Self::at(Path::new("/proc"), Path::new("/sys/kernel/mm/ksm"))
    }
}

impl Ksm {
    /// Other folders than this host's, for tests.
    #[must_use]
    pub fn at(proc: &Path, settings: &Path) -> Self {
        Self { proc: proc.into(), settings: settings.into() }
    }

    /// Whether a guest may ask for merging at all.
    ///
    /// # Errors
    /// When KSM is not there, is off, or would make figures of frames wrong.
    pub fn check_settings(&self) -> Result<(), KsmError> {
        match self.setting("run")? {
            1 => {}
            run => return Err(KsmError::Off { run }),
        }
        // Linux 4.12; a kernel without it does not do it.
        match self.setting("use_zero_pages") {
            Ok(0) | Err(KsmError::Missing { .. }) => Ok(()),
            Ok(_) => Err(KsmError::ZeroPages),
            Err(error) => Err(error),
        }
    }

    fn setting(&self, name: &'static str) -> Result<u64, KsmError> {
        match std::fs::read_to_string(self.settings.join(name)) {
            Ok(text) => text.trim().parse().map_err(|_| KsmError::Strange { name }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KsmError::Missing { name }),
            Err(source) => Err(KsmError::Setting { name, source }),
        }
    }

    /// All processes whose pages are merged, or may be. The scan takes at most this long.
    ///
    /// # Errors
    /// When a process cannot be scanned, or there are too many: then it is not known which processes share pages.
    pub fn mergeable(&self, most: Duration) -> Result<Vec<Mergeable>, KsmError> {
        processes::find(&self.proc, Instant::now() + most, most)
    }

    /// Merging of a process. `None` when it is gone, or the kernel does not report it (before Linux 6.4).
    #[must_use]
    pub fn merged(&self, pid: i32) -> Option<Merged> {
        let stat = std::fs::read_to_string(self.proc.join(format!("{pid}/ksm_stat"))).ok()?;
        let figure = |name| field(&stat, name)?.parse::<i64>().ok();
        let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
        let cost_bytes = unsigned(figure("ksm_rmap_items")?).saturating_mul(RMAP_ITEM_BYTES);
        Some(Merged {
            merging_pages: unsigned(figure("ksm_merging_pages")?),
            profit_bytes: figure("ksm_process_profit")?,
            cost_bytes,
        })
    }
}

/// A line of `ksm_stat`: `ksm_rmap_items 12`, `ksm_mergeable: no`.
fn field<'a>(stat: &'a str, name: &str) -> Option<&'a str> {
    stat.lines()
        .find_map(|line| line.strip_prefix(name)?.trim_start_matches(':').strip_prefix(' '))
        .map(str::trim)
}

#[cfg(test)]
#[path = "ksm_test.rs"]
mod tests;
