//! The lab's outer machine: a Linux with KVM, emulated by QEMU, for hosts whose CPU does not virtualize.
//!
//! ```text
//!   host                         outer machine (QEMU, TCG, a CPU with SVM)      guests
//!   payload files --ext4-------> disk d0, on /payload
//!   library files --ext4-------> disk d3, on /library, if there are any; writes there end with the machine
//!   command ----raw disk-------> disk d2, run by sh ---------------------> vmm --kernel ...
//!   callback, line by line <---- ttyS1: what the command prints
//!   artifacts_dir/ <--tar------- disk d1: what it left in $BALLAST_ARTIFACTS, and its exit status
//!   artifacts_dir/console.log <- ttyS0: the kernel's console
//! ```
//!
//! Recipe and measurements behind the choices: disks are NVMe and ext4 since both are built into the kernel;
//! ports are serial since they lose nothing when the kernel dies; the CPU model is the plainest with SVM.

mod artifacts;
mod payload;
mod qemu;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cache::remove;
use crate::error::{Error, FileContext, Result};
use crate::image_set::ImageSet;
use crate::kernel::KernelSeries;
use crate::scratch::Scratch;

use qemu::{Access, Ended, Qemu};

pub use payload::ext4;

/// Free space of the library's disk, as a multiple of what is on it.
const LIBRARY_FREE_PART: u64 = 1;

/// An outer machine that runs one command.
#[derive(Debug, Clone)]
pub struct OuterMachine {
    /// Its kernel; the guests inside may have another.
    pub kernel: KernelSeries,
    /// Its memory, MiB.
    pub memory_mib: u32,
    /// Its CPUs; each is a thread of QEMU.
    pub cpus: u32,
    /// Files for `/payload`: where they are here, and their path below `/payload`. `bin/` is in the `PATH`.
    pub payload: Vec<(PathBuf, String)>,
    /// Files for `/library`, on a disk of their own with room for as much again: large ones, which stay the same while
    /// the payload changes.
    pub library: Vec<(PathBuf, String)>,
    /// What to run: a shell script, started in `/tmp`.
    pub command: String,
    /// The machine is ended after so much time.
    pub deadline: Duration,
    /// Where the files go that the command leaves in `$BALLAST_ARTIFACTS`. Emptied first.
    pub artifacts_dir: PathBuf,
}

/// What became of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OuterResult {
    /// The command's exit status, as in a shell (128 + signal).
    pub exit_code: i32,
    /// The files that it left, and `console.log`.
    pub artifacts_dir: PathBuf,
    /// From the start of QEMU to its end.
    pub took: Duration,
}

impl OuterMachine {
    /// Boots the machine, runs the command and gives each line it prints to `on_line`.
    ///
    /// QEMU ends with this call, on every path; when this process dies, the kernel ends it.
    pub fn run(&self, images: &ImageSet, on_line: &mut dyn FnMut(&str)) -> Result<OuterResult> {
        let outer = images.ensure_outer(self.kernel)?;
        let payload = payload::ensure(images.cache(), &self.payload, 0)?;
        remove(&self.artifacts_dir)?;
        fs::create_dir_all(&self.artifacts_dir).file("create", &self.artifacts_dir)?;
        let library = match self.library.is_empty() {
            true => None,
            false => Some(payload::ensure(images.cache(), &self.library, LIBRARY_FREE_PART)?),
        };
        let scratch = Scratch::new("outer");
        let command = payload::command_disk(scratch.path(), &self.command)?;
        let tar = artifacts::disk(scratch.path())?;
        let console = self.artifacts_dir.join("console.log");

        let mut disks: Vec<(&Path, Access)> =
            vec![(&payload, Access::Read), (&tar, Access::Write), (&command, Access::Read)];
        disks.extend(library.iter().map(|path| (path.as_path(), Access::Scratch)));
        let began = Instant::now();
        let mut qemu = Qemu::start(&qemu::Machine {
            kernel: &outer.vmlinux,
            initramfs: &outer.initramfs,
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            disks: &disks,
            console: &console,
            monitor: &scratch.path().join("monitor"),
        })?;
        let mut tail = qemu::Tail::default();
        let ended = qemu.lines(self.deadline, &mut |line| {
            tail.push(line);
            on_line(line);
        })?;
        drop(qemu);
        let status = match ended {
            Ended::Exited(status) => status,
            Ended::Deadline => {
                return Err(Error::OuterTimeout { after: self.deadline, tail: tail.with_console(&console) });
            }
            Ended::Silent(after, state) => {
                let tail = format!("{}\n{state}", tail.with_console(&console));
                return Err(Error::OuterSilent { after, tail });
            }
        };
        let Some(exit_code) = artifacts::unpack(&tar, &self.artifacts_dir)? else {
            return Err(Error::OuterDied { status, tail: tail.with_console(&console) });
        };
        Ok(OuterResult { exit_code, artifacts_dir: self.artifacts_dir.clone(), took: began.elapsed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_paths_stay_inside() {
        for path in ["/etc/passwd", "../x", "a/../../x", ""] {
            let files = [(PathBuf::from("/proc/version"), path.to_string())];
            let error = payload::check(&files).unwrap_err();
            assert!(matches!(error, Error::Package { .. }), "{path:?}: {error}");
        }
    }
}
