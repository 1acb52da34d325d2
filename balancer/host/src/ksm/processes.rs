//! Which processes of the host have pages that the kernel may merge.

use super::{KsmError, field};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

/// Most processes that are scanned: the kernel's default of `pid_max`.
pub const PROCESSES_MAX: usize = 32_768;

/// A process whose pages may be merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mergeable {
    /// The process.
    pub pid: i32,
    /// Its name, for messages.
    pub name: String,
}

impl fmt::Display for Mergeable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.pid, self.name)
    }
}

pub(super) fn find(proc: &Path, until: Instant, most: Duration) -> Result<Vec<Mergeable>, KsmError> {
    // If processes of other users are not even listed (`hidepid`), the first one is missing.
    let unreadable = |pid| move |source| KsmError::Unreadable { pid, source };
    let _first = fs::metadata(proc.join("1")).map_err(unreadable(1))?;
    let mut found = Vec::new();
    let mut scanned = 0;
    for entry in fs::read_dir(proc).map_err(KsmError::List)? {
        let name = entry.map_err(KsmError::List)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        scanned += 1;
        if scanned > PROCESSES_MAX {
            return Err(KsmError::Many);
        }
        let dir = proc.join(&name);
        match is_mergeable(&dir, until) {
            Ok(true) => {
                let comm = fs::read_to_string(dir.join("comm")).unwrap_or_default();
                let plain = comm.trim().chars().filter(|c| !c.is_control()).take(32).collect();
                found.push(Mergeable { pid, name: plain });
            }
            Ok(false) => {}
            // It ended while it was scanned.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(slow(most)),
            Err(source) => return Err(KsmError::Unreadable { pid, source }),
        }
        if Instant::now() >= until {
            return Err(slow(most));
        }
    }
    Ok(found)
}

fn slow(most: Duration) -> KsmError {
    KsmError::Slow { waited_ms: most.as_millis() }
}

/// A process without memory, one of the kernel's or one that ended, has empty files.
fn is_mergeable(dir: &Path, until: Instant) -> io::Result<bool> {
    let stat = match fs::read_to_string(dir.join("ksm_stat")) {
        // Before Linux 6.1.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    if let Some(told) = field(&stat, "ksm_mergeable") {
        return Ok(told == "yes");
    }
    // Processes scanned by the kernel so far have these items; a process without them may be the next one.
    if field(&stat, "ksm_rmap_items").is_some_and(|items| items != "0") {
        return Ok(true);
    }
    for line in BufReader::new(File::open(dir.join("smaps"))?).lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        if words.next() == Some("VmFlags:") && words.any(|flag| flag == "mg") {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(false)
}
