//! What moves while a test waits.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Something that moves.
pub trait Progress {
    /// A number that becomes another one when something moved.
    fn count(&self) -> u64;
}

impl<P: Progress + ?Sized> Progress for &P {
    fn count(&self) -> u64 {
        (**self).count()
    }
}

/// A count that the one that waits keeps itself.
#[derive(Debug, Clone, Copy)]
pub struct Counted<F>(pub F);

impl<F: Fn() -> u64> Progress for Counted<F> {
    fn count(&self) -> u64 {
        self.0()
    }
}

/// Nothing that moves: only what the look itself sees.
#[derive(Debug, Clone, Copy)]
pub struct Still;

impl Progress for Still {
    fn count(&self) -> u64 {
        0
    }
}

/// So much CPU time is a step of progress, seconds. A program that has nothing to do uses some as well, for timers:
/// QEMU with an idle Linux guest 0.24 s in a minute (measured), hence less than one step in [`crate::QUIET_MAX`]. A
/// guest that boots makes a step in that time even where it gets only 2 % of a processor.
const CPU_STEP_S: u64 = 1;
/// `USER_HZ` of Linux on x86: the unit of times in /proc/PID/stat.
const TICKS_PER_SECOND: u64 = 100;

/// What processes do: their CPU time, with that of their descendants, and the length of files that they write.
#[derive(Debug, Clone, Default)]
pub struct Activity {
    pids: Vec<u32>,
    files: Vec<PathBuf>,
}

impl Activity {
    /// That of a process and of its descendants.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Self { pids: vec![pid], files: Vec::new() }
    }

    /// With the length of a file that it writes.
    #[must_use]
    pub fn with_file(mut self, path: &Path) -> Self {
        self.files.push(path.into());
        self
    }

    /// With the activity of others.
    pub fn add(&mut self, other: &Self) {
        self.pids.extend(&other.pids);
        self.files.extend_from_slice(&other.files);
    }

    /// CPU time of the processes and of their descendants, ended ones included. A process that is gone counts nothing.
    fn cpu_ticks(&self) -> u64 {
        if self.pids.is_empty() {
            return 0;
        }
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut others: Vec<Stat> = pids.filter_map(Stat::of).collect();
        let (mut family, mut ticks) = (BTreeSet::from_iter(self.pids.iter().copied()), 0);
        loop {
            let is_ours = |one: &mut Stat| family.contains(&one.pid) || family.contains(&one.parent);
            let found: Vec<Stat> = others.extract_if(.., is_ours).collect();
            if found.is_empty() {
                return ticks;
            }
            ticks += found.iter().map(|one| one.cpu_ticks).sum::<u64>();
            family.extend(found.iter().map(|one| one.pid));
        }
    }
}

impl Progress for Activity {
    fn count(&self) -> u64 {
        let written = self.files.iter().map(|path| fs::metadata(path).map_or(0, |file| file.len()));
        written.sum::<u64>() + self.cpu_ticks() / (CPU_STEP_S * TICKS_PER_SECOND)
    }
}

/// Of proc_pid_stat(5).
struct Stat {
    pid: u32,
    parent: u32,
    cpu_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which may have anything in it: state is field 3, ppid 4, utime to cstime 14 to 17.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let cpu_ticks = (14..=17).map(number).sum::<Option<u64>>()?;
        Some(Self { pid, parent: u32::try_from(number(4)?).ok()?, cpu_ticks })
    }
}
