//! The working set of guests, as the kernel's data access monitor sees it: DAMON, by its files
//! (`Documentation/admin-guide/mm/damon/usage.rst`). It samples accessed bits, including those of KVM's page tables,
//! and no guest has to cooperate.
//!
//! `balancer serve --working-sets` needs this, for operators who want to see how much of its memory a guest uses before
//! they lower a limit. The policy does not depend on it. It is off by default, and needs root.
//!
//! ```text
//!   one kdamond, one context     target i: process and RAM of guest i     scheme i: count what was accessed there
//! ```
//!
//! There is one such set of files per host. If another program uses it already, working sets are not known. A set of
//! files that a killed balancer left is recognized by a marker file and taken over.

mod error;

pub use error::DamonError;

use crate::proc::{Mapping, mappings};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kernel's folder of it.
pub const FILES: &str = "/sys/kernel/mm/damon/admin/kdamonds";
/// Guests that are watched at a time.
pub const WATCHED_MAX: usize = 64;
/// Accesses within this are counted.
pub const AGGREGATION: Duration = Duration::from_secs(4);
/// Time between two samples: one access check for each region.
const SAMPLE: Duration = Duration::from_millis(200);
/// A region is used if this many of those samples found it accessed. One is not enough: regions are cut and joined by
/// the samples, so a region of which a small part is used now and then would count as a whole.
const ACCESSES_MIN: u64 = 2;
/// Bounds of the number of regions, for each guest that is watched: the cost of a sample, and its resolution.
const REGIONS: std::ops::RangeInclusive<usize> = 64..=256;

/// RAM of a guest in the process of its `vmm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The process.
    pub pid: i32,
    /// First address of guest RAM in it.
    pub from: u64,
    /// The address behind.
    pub to: u64,
}

/// DAMON, held for the balancer of this host.
#[derive(Debug)]
pub struct Damon {
    files: PathBuf,
    marker: PathBuf,
    watched: Vec<Watched>,
}

impl Damon {
    /// Takes it for this balancer. `marker` is the file that records that.
    ///
    /// # Errors
    /// When the kernel does not have it, it does not watch processes, this user may not use it, or another program
    /// does.
    pub fn open(files: &Path, marker: &Path) -> Result<Self, DamonError> {
        let number = files.join("nr_kdamonds");
        let text = match fs::read_to_string(&number) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(DamonError::Missing),
            Err(source) => return Err(DamonError::Io { path: number, source }),
        };
        let found = text.trim().to_owned();
        let damon = Self { files: files.into(), marker: marker.into(), watched: vec![] };
        if found != "0" {
            let boot = boot_id();
            if boot.is_empty() || fs::read_to_string(marker).ok().as_deref() != Some(&boot) {
                // It is not ours: nothing is changed when this is dropped.
                std::mem::forget(damon);
                return Err(DamonError::InUse { found });
            }
            damon.stop()?;
        }
        fs::write(marker, boot_id()).map_err(|source| DamonError::Io { path: marker.into(), source })?;
        damon.set("nr_kdamonds", 1)?;
        damon.set("0/contexts/nr_contexts", 1)?;
        let operations = "0/contexts/0/avail_operations";
        let known = damon.get(operations)?;
        if !known.split_whitespace().any(|word| word == "fvaddr") {
            return Err(DamonError::NoProcesses { known: known.trim().replace('\n', " ") });
        }
        damon.set("0/contexts/0/operations", "fvaddr")?;
        Ok(damon)
    }

    /// Guests that are watched.
    #[must_use]
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// Watches these guests and no others. The samples so far are lost.
    ///
    /// # Errors
    /// When the kernel refuses; then no guest is watched.
    pub fn watch(&mut self, watched: Vec<Watched>) -> Result<(), DamonError> {
        if self.watched == watched {
            return Ok(());
        }
        if !self.watched.is_empty() {
            // It has ended by itself if all its processes have.
            self.set("0/state", "off").ok();
            self.watched.clear();
        }
        if watched.is_empty() {
            return Ok(());
        }
        let micros = |time: Duration| time.as_micros();
        let context = "0/contexts/0";
        self.set(&format!("{context}/monitoring_attrs/intervals/sample_us"), micros(SAMPLE))?;
        self.set(&format!("{context}/monitoring_attrs/intervals/aggr_us"), micros(AGGREGATION))?;
        self.set(&format!("{context}/monitoring_attrs/nr_regions/min"), REGIONS.start() * watched.len())?;
        self.set(&format!("{context}/monitoring_attrs/nr_regions/max"), REGIONS.end() * watched.len())?;
        self.set(&format!("{context}/targets/nr_targets"), watched.len())?;
        self.set(&format!("{context}/schemes/nr_schemes"), watched.len())?;
        for (i, Watched { pid, from, to }) in watched.iter().enumerate() {
            let target = format!("{context}/targets/{i}");
            self.set(&format!("{target}/pid_target"), pid)?;
            self.set(&format!("{target}/regions/nr_regions"), 1)?;
            self.set(&format!("{target}/regions/0/start"), from)?;
            self.set(&format!("{target}/regions/0/end"), to)?;
            let scheme = format!("{context}/schemes/{i}");
            self.set(&format!("{scheme}/action"), "stat")?;
            for (pattern, least, most) in [
                ("sz", 0, u64::MAX),
                ("nr_accesses", ACCESSES_MIN, u64::from(u32::MAX)),
                ("age", 0, u64::from(u32::MAX)),
            ] {
                self.set(&format!("{scheme}/access_pattern/{pattern}/min"), least)?;
                self.set(&format!("{scheme}/access_pattern/{pattern}/max"), most)?;
            }
            // All targets but this one are left out.
            self.set(&format!("{scheme}/filters/nr_filters"), 1)?;
            self.set(&format!("{scheme}/filters/0/type"), "target")?;
            self.set(&format!("{scheme}/filters/0/damon_target_idx"), i)?;
            self.set(&format!("{scheme}/filters/0/matching"), "N")?;
        }
        self.set("0/state", "on")?;
        self.watched = watched;
        Ok(())
    }

    /// Memory of each watched guest that was accessed within the last [`AGGREGATION`], bytes. Waits until the kernel
    /// has counted, at most twice as long: must not be called on the daemon's own thread.
    ///
    /// # Errors
    /// When the kernel does not answer, for instance because all of its processes have ended.
    pub fn working_sets(&self) -> Result<Vec<u64>, DamonError> {
        if self.watched.is_empty() {
            return Ok(vec![]);
        }
        self.set("0/state", "update_schemes_tried_bytes")?;
        let bytes = |i| {
            let name = format!("0/contexts/0/schemes/{i}/tried_regions/total_bytes");
            let text = self.get(&name)?;
            text.trim().parse().map_err(|_| DamonError::Strange { name, text: text.trim().into() })
        };
        (0..self.watched.len()).map(bytes).collect()
    }

    /// Releases it.
    fn stop(&self) -> Result<(), DamonError> {
        if self.get("0/state").is_ok_and(|state| state.trim() == "on") {
            self.set("0/state", "off").ok();
        }
        self.set("nr_kdamonds", 0)?;
        fs::remove_file(&self.marker).ok();
        Ok(())
    }

    fn set(&self, name: &str, value: impl ToString) -> Result<(), DamonError> {
        let path = self.files.join(name);
        fs::write(&path, value.to_string()).map_err(|source| DamonError::Io { path, source })
    }

    fn get(&self, name: &str) -> Result<String, DamonError> {
        let path = self.files.join(name);
        fs::read_to_string(&path).map_err(|source| DamonError::Io { path, source })
    }
}

impl Drop for Damon {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::debug!(%error, "DAMON is not released; the next balancer does it");
        }
    }
}

/// Identifies this boot of the host.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Guest RAM of this number of bytes in a process: the smallest run of private anonymous mappings without a gap that
/// has room for it. Advice about huge pages may cut one mapping into several.
#[must_use]
pub fn find_ram(maps: &str, ram_bytes: u64) -> Option<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    // A mapping with a name is heap, stack or the kernel's.
    let is_ram = |mapping: &Mapping<'_>| {
        let is_private = mapping.mode.starts_with("rw") && mapping.mode.ends_with('p');
        mapping.is_anonymous && mapping.name.is_empty() && is_private
    };
    for Mapping { start, end, .. } in mappings(maps).filter(is_ram) {
        match runs.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => runs.push((start, end)),
        }
    }
    runs.into_iter()
        .filter(|(from, to)| to.saturating_sub(*from) >= ram_bytes)
        .min_by_key(|(from, to)| to - from)
}

#[cfg(test)]
#[path = "damon_test.rs"]
mod tests;
