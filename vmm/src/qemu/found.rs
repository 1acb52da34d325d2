//! How a machine was found, to be left like that.
//!
//! Of somebody else's machine it is kept in a file beside the balancer's sockets as well, from before anything is changed until all of it
//! is put back: a helper that is killed puts nothing back, and a guest that takes its time is on its way still when it is let go.
//! Whoever attaches the same QEMU next takes from there what it was, not what the last one left.

use super::process;
use protocol::bytes::FRAME_BYTES;
use protocol::place::Place;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Names of the files: this, the process id of QEMU, and that.
const PREFIX: &str = "found-";
const SUFFIX: &str = ".json";
/// Longest file, bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// What is put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// What the balloon left the guest.
    pub bytes: u64,
    /// How often the guest was asked for statistics, seconds; 0 for never.
    pub interval_s: i64,
    /// Where it is kept.
    file: Option<PathBuf>,
}

/// The same in a file, and whose it is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Process of QEMU.
    pid: i32,
    /// When that started, by the kernel's clock: another process may have its id by now.
    started_ticks: u64,
    bytes: u64,
    interval_s: i64,
}

impl Found {
    /// A machine of our own: nobody else is to find it.
    pub(super) fn own(ram_bytes: u64) -> Self {
        Self { bytes: ram_bytes, interval_s: 0, file: None }
    }

    /// Somebody else's machine, as it is now; or as it was before the last one had it who did not put all of it back.
    pub(super) fn attached(place: &Place, pid: i32, ram_bytes: u64, now: (u64, i64)) -> Self {
        let (bytes, interval_s) = now;
        let mut found = Self { bytes, interval_s, file: None };
        let Some(started_ticks) = process::started_ticks(pid) else { return found };
        sweep(place.dir());
        let file = place.dir().join(format!("{PREFIX}{pid}{SUFFIX}"));
        let kept = read(&file).and_then(|kept| kept.of(pid, started_ticks, ram_bytes));
        match kept {
            Ok(kept) => {
                tracing::info!(?kept, "It was not put back by who had it last: it is left as it was before");
                (found.bytes, found.interval_s) = (kept.bytes, kept.interval_s);
                found.file = Some(file);
                return found;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("{} is passed over: {error}", file.display()),
        }
        match write(&file, &Kept { pid, started_ticks, bytes, interval_s }) {
            Ok(()) => found.file = Some(file),
            Err(error) => tracing::warn!(
                "Cannot write {}, a helper that is killed leaves the guest as it is then: {error}",
                file.display()
            ),
        }
        found
    }

    /// All of it is as it was.
    pub(super) fn is_put_back(&self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

impl Kept {
    /// What is of this QEMU and can be put back.
    fn of(self, pid: i32, started_ticks: u64, ram_bytes: u64) -> io::Result<Self> {
        let is_of_it = (self.pid, self.started_ticks) == (pid, started_ticks);
        let is_memory = (1..=ram_bytes).contains(&self.bytes) && self.bytes.is_multiple_of(FRAME_BYTES);
        // What QEMU takes.
        let is_interval = u32::try_from(self.interval_s).is_ok();
        if is_of_it && is_memory && is_interval {
            return Ok(self);
        }
        let why = format!("{self:?} is not of process {pid} with {ram_bytes} bytes of RAM");
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }
}

fn read(file: &Path) -> io::Result<Kept> {
    // Neither a link nor a pipe that nobody writes to is waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(file)?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Whole or not at all.
fn write(file: &Path, kept: &Kept) -> io::Result<()> {
    let new = file.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    written.write_all(&serde_json::to_vec(kept)?)?;
    fs::rename(new, file)
}

/// Removes what is kept of processes that are gone.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok());
        let Some(pid) = pid else { continue };
        let is_there = process::started_ticks(pid).is_some_and(|started_ticks| {
            // What cannot be read may be of that process.
            read(&entry.path()).map_or(true, |kept| kept.started_ticks == started_ticks)
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
    fn who_attaches_next_finds_what_was_there_before_the_one_that_was_killed() {
        let dir = std::env::temp_dir().join(format!("ballast-found-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let place = Place::new(Some(dir.clone()));
        let pid = i32::try_from(std::process::id()).unwrap();
        let of = |now| Found::attached(&place, pid, 512 * MIB, now);
        let files = || fs::read_dir(&dir).unwrap().count();

        // The first is killed; the second is not, and puts it back.
        assert_eq!((of((512 * MIB, 7)).bytes, files()), (512 * MIB, 1));
        let second = of((161 * MIB, 1));
        assert_eq!((second.bytes, second.interval_s), (512 * MIB, 7));
        second.is_put_back();
        assert_eq!((of((300 * MIB, 0)).bytes, files()), (300 * MIB, 1));

        // What is no such file, of another process, or impossible, is as if it were not there, and is replaced.
        let file = dir.join(format!("{PREFIX}{pid}{SUFFIX}"));
        let started_ticks = process::started_ticks(pid).unwrap();
        let kept = |started_ticks, bytes, interval_s| {
            serde_json::to_string(&Kept { pid, started_ticks, bytes, interval_s }).unwrap()
        };
        for text in [
            "".into(),
            "[1".into(),
            "x".repeat(8192),
            kept(started_ticks + 1, 512 * MIB, 7),
            kept(started_ticks, 0, 7),
            kept(started_ticks, 513 * MIB, 7),
            kept(started_ticks, 77, 7),
            kept(started_ticks, 512 * MIB, -1),
        ] {
            fs::write(&file, &text).unwrap();
            let found = of((200 * MIB, 3));
            assert_eq!((found.bytes, found.interval_s), (200 * MIB, 3), "{text}");
            assert_eq!(read(&file).unwrap().bytes, 200 * MIB);
        }
        // A link is not followed, and what is of a process that is gone goes.
        fs::remove_file(&file).unwrap();
        let elsewhere = dir.join("elsewhere");
        fs::write(&elsewhere, kept(started_ticks, 512 * MIB, 7)).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file).unwrap();
        fs::write(dir.join(format!("{PREFIX}{}{SUFFIX}", i32::MAX)), "{}").unwrap();
        assert_eq!((of((200 * MIB, 3)).bytes, files()), (200 * MIB, 2));
        assert!(fs::read_to_string(&elsewhere).unwrap().contains("\"interval_s\":7"));
        fs::remove_dir_all(dir).unwrap();
    }
}
