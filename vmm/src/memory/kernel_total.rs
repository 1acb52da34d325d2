//! What the kernel says in O(1): anonymous memory of this process, and pages of files. The gate before a scan, and the check behind it.

use host::kernel::{has_swap, statm_error_frames};
use protocol::bytes::FRAME_BYTES;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What the VMM's own heap and stacks grow and shrink by while a guest runs, frames.
const OWN_FRAMES: u64 = 256;

/// The kernel's total of anonymous memory of a process.
#[derive(Debug)]
pub struct KernelTotal {
    statm: File,
    status: File,
    inexact_frames: u64,
}

impl KernelTotal {
    /// Opens the files that it is read from.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn open() -> io::Result<Self> {
        Self::in_folder("/proc/self")
    }

    /// The same of another process.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        Self::in_folder(&format!("/proc/{pid}"))
    }

    fn in_folder(folder: &str) -> io::Result<Self> {
        Ok(Self {
            statm: File::open(format!("{folder}/statm"))?,
            status: File::open(format!("{folder}/status"))?,
            inexact_frames: OWN_FRAMES + statm_error_frames(),
        })
    }

    /// Anonymous memory of the process, in memory or swapped out, frames. The zero page does not count.
    ///
    /// # Errors
    /// When the kernel's answer cannot be read.
    pub fn frames(&self) -> io::Result<u64> {
        let (resident, file) = self.resident()?;
        Ok(resident.saturating_sub(file) + self.swapped()?)
    }

    /// Pages of files and of shared memory that the process has mapped, frames.
    ///
    /// # Errors
    /// When the kernel's answer cannot be read.
    pub fn file_frames(&self) -> io::Result<u64> {
        Ok(self.resident()?.1)
    }

    /// Pages in memory, and those of them that are of files or shared memory.
    fn resident(&self) -> io::Result<(u64, u64)> {
        let mut text = [0; 128];
        let count = self.statm.read_at(&mut text, 0)?;
        // proc_pid_statm(5): size, resident, shared (file and shared memory), in pages.
        let text = String::from_utf8_lossy(&text[..count]);
        let mut fields = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
        let (Some(Ok(resident)), Some(Ok(shared))) = (fields.next(), fields.next()) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/self/statm says {text:?}"),
            ));
        };
        Ok((resident, shared))
    }

    /// How far the total may be off what guest RAM does to it, frames.
    #[must_use]
    pub fn inexact_frames(&self) -> u64 {
        self.inexact_frames
    }

    /// What the host swapped out of this process, frames. A host without swap space is not asked.
    fn swapped(&self) -> io::Result<u64> {
        if !has_swap() {
            return Ok(0);
        }
        let mut text = [0; 4096];
        let count = self.status.read_at(&mut text, 0)?;
        let text = String::from_utf8_lossy(&text[..count]);
        let line = text.lines().find_map(|line| line.strip_prefix("VmSwap:")).unwrap_or("0");
        let kib: u64 =
            line.split_ascii_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
        Ok(kib * 1024 / FRAME_BYTES)
    }
}
