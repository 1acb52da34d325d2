//! The original settings of a machine, to be restored at the end.
//!
//! For an attached machine they are also saved to a file next to the balancer's sockets, before the first change and
//! until all are restored: a helper that is killed restores nothing, and a slow guest is still on its way when it is
//! detached. The next helper that attaches the same QEMU takes the original settings from that file, not what the
//! last helper left.

use super::process;
use protocol::bytes::FRAME_BYTES;
use protocol::run_dir::RunDir;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Names of the files: the prefix, the process id of QEMU, and the suffix.
const PREFIX: &str = "found-";
const SUFFIX: &str = ".json";
/// Longest file, bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// Settings that are restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Original {
    /// RAM less the balloon. Bytes.
    pub bytes: u64,
    /// How often QEMU polled the guest for statistics, seconds; 0 for never.
    pub interval_s: i64,
    /// Where they are saved.
    file: Option<PathBuf>,
}

/// The content of such a file: the settings, and the machine that they belong to.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// The process of QEMU.
    pid: i32,
    /// When that process started, by the kernel's clock: another process may have its id by now.
    started_ticks: u64,
    bytes: u64,
    interval_s: i64,
}

impl Original {
    /// A machine that this process started: nothing is saved.
    pub(super) fn own(ram_bytes: u64) -> Self {
        Self { bytes: ram_bytes, interval_s: 0, file: None }
    }

    /// A machine of another program, as it is now; or as a file says that it was, if an earlier helper did not
    /// restore it.
    pub(super) fn attached(run_dir: &RunDir, pid: i32, ram_bytes: u64, now: (u64, i64)) -> Self {
        let (bytes, interval_s) = now;
        let mut original = Self { bytes, interval_s, file: None };
        let Some(started_ticks) = process::started_ticks(pid) else { return original };
        sweep(run_dir.dir());
        let file = run_dir.dir().join(format!("{PREFIX}{pid}{SUFFIX}"));
        let saved = read(&file).and_then(|saved| saved.of(pid, started_ticks, ram_bytes));
        match saved {
            Ok(saved) => {
                tracing::info!(
                    ?saved,
                    "An earlier helper did not restore the machine: its saved settings count"
                );
                (original.bytes, original.interval_s) = (saved.bytes, saved.interval_s);
                original.file = Some(file);
                return original;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("{} is ignored: {error}", file.display()),
        }
        match write(&file, &Saved { pid, started_ticks, bytes, interval_s }) {
            Ok(()) => original.file = Some(file),
            Err(error) => tracing::warn!(
                "Cannot write {}: if this process is killed, the original settings of the guest are lost: {error}",
                file.display()
            ),
        }
        original
    }

    /// All settings are restored: the file is not needed any more.
    pub(super) fn is_restored(&self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

impl Saved {
    /// These settings if they belong to this QEMU and can be restored.
    fn of(self, pid: i32, started_ticks: u64, ram_bytes: u64) -> io::Result<Self> {
        let is_of_it = (self.pid, self.started_ticks) == (pid, started_ticks);
        let is_memory = (1..=ram_bytes).contains(&self.bytes) && self.bytes.is_multiple_of(FRAME_BYTES);
        // QEMU takes no others.
        let is_interval = u32::try_from(self.interval_s).is_ok();
        if is_of_it && is_memory && is_interval {
            return Ok(self);
        }
        let why = format!("{self:?} does not belong to process {pid} with {ram_bytes} bytes of RAM");
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }
}

fn read(file: &Path) -> io::Result<Saved> {
    // A link is not followed, and a pipe without a writer does not block.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(file)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Writes the whole file or nothing.
fn write(file: &Path, saved: &Saved) -> io::Result<()> {
    let new = file.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    written.write_all(&serde_json::to_vec(saved)?)?;
    fs::rename(new, file)
}

/// Removes files of processes that ended.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        let Some(pid) = pid else { continue };
        let is_there = process::started_ticks(pid).is_some_and(|started_ticks| {
            // A file that cannot be read may belong to that process.
            read(&entry.path()).map_or(true, |saved| saved.started_ticks == started_ticks)
        });
        if !is_there {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_next_helper_finds_the_settings_from_before_a_helper_that_was_killed() {
        let dir = std::env::temp_dir().join(format!("ballast-found-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let run_dir = RunDir::new(Some(dir.clone()));
        let pid = i32::try_from(std::process::id()).unwrap();
        let of = |now| Original::attached(&run_dir, pid, 512 * MIB, now);
        let files = || fs::read_dir(&dir).unwrap().count();

        // The first helper is killed; the second restores the settings.
        assert_eq!((of((512 * MIB, 7)).bytes, files()), (512 * MIB, 1));
        let second = of((161 * MIB, 1));
        assert_eq!((second.bytes, second.interval_s), (512 * MIB, 7));
        second.is_restored();
        assert_eq!((of((300 * MIB, 0)).bytes, files()), (300 * MIB, 1));

        // A file that is malformed, of another process, or impossible is ignored and replaced.
        let file = dir.join(format!("{PREFIX}{pid}{SUFFIX}"));
        let started_ticks = process::started_ticks(pid).unwrap();
        let saved = |started_ticks, bytes, interval_s| {
            serde_json::to_string(&Saved { pid, started_ticks, bytes, interval_s }).unwrap()
        };
        for text in [
            "".into(),
            "[1".into(),
            "x".repeat(8192),
            saved(started_ticks + 1, 512 * MIB, 7),
            saved(started_ticks, 0, 7),
            saved(started_ticks, 513 * MIB, 7),
            saved(started_ticks, 77, 7),
            saved(started_ticks, 512 * MIB, -1),
        ] {
            fs::write(&file, &text).unwrap();
            let original = of((200 * MIB, 3));
            assert_eq!((original.bytes, original.interval_s), (200 * MIB, 3), "{text}");
            assert_eq!(read(&file).unwrap().bytes, 200 * MIB);
        }
        // A link is not followed, and the file of a process that ended is removed.
        fs::remove_file(&file).unwrap();
        let elsewhere = dir.join("elsewhere");
        fs::write(&elsewhere, saved(started_ticks, 512 * MIB, 7)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        fs::write(dir.join(format!("{PREFIX}{}{SUFFIX}", i32::MAX)), "{}").unwrap();
        assert_eq!((of((200 * MIB, 3)).bytes, files()), (200 * MIB, 2));
        assert!(fs::read_to_string(&elsewhere).unwrap().contains("\"interval_s\":7"));
        fs::remove_dir_all(dir).unwrap();
    }
}
