//! What the kernel says in O(1): anonymous memory of a process, and pages of files. It decides whether a scan is
//! worth its cost, and bounds the error after it.

use host::kernel::statm_error_frames;
use protocol::bytes::FRAME_BYTES;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What the VMM's own heap and stacks grow and shrink by while a guest runs, frames.
const OWN_FRAMES: u64 = 256;

/// What the kernel holds for a process by kind, all of it from one read. Frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelFrames {
    /// Anonymous memory that is resident. The zero page does not count.
    pub anonymous: u64,
    /// Anonymous memory that was swapped out.
    pub swapped: u64,
    /// Pages of files and of shared memory that the process has mapped.
    pub file: u64,
}

impl KernelFrames {
    /// Reads the text of a `/proc/PID/status` (proc_pid_status(5)). `None` if it has no figures of memory.
    fn of_status(text: &str) -> Option<Self> {
        let frames = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
            Some(kib * 1024 / FRAME_BYTES)
        };
        let file = frames("RssFile:")? + frames("RssShmem:")?;
        Some(Self { anonymous: frames("RssAnon:")?, swapped: frames("VmSwap:").unwrap_or(0), file })
    }

    /// Anonymous memory, resident or swapped out. A page that is swapped out or in changes nothing of it.
    #[must_use]
    pub fn all_anonymous(&self) -> u64 {
        self.anonymous + self.swapped
    }
}

/// The kernel's total of memory of a process.
#[derive(Debug)]
pub struct KernelTotal {
    status: File,
    inexact_frames: u64,
}

impl KernelTotal {
    /// Opens the file that it is read from.
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
            status: File::open(format!("{folder}/status"))?,
            inexact_frames: OWN_FRAMES + statm_error_frames(),
        })
    }

    /// Memory by kind, in one system call: a page that is swapped out between two of them would be in neither sum, or
    /// in both.
    ///
    /// # Errors
    /// When the kernel's answer cannot be read.
    pub fn sample(&self) -> io::Result<KernelFrames> {
        let mut text = [0; 4096];
        let count = self.status.read_at(&mut text, 0)?;
        let text = String::from_utf8_lossy(&text[..count]);
        let unknown =
            || io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/status has no figures of memory");
        KernelFrames::of_status(&text).ok_or_else(unknown)
    }

    /// Anonymous memory of the process, resident or swapped out, frames.
    ///
    /// # Errors
    /// When the kernel's answer cannot be read.
    pub fn frames(&self) -> io::Result<u64> {
        Ok(self.sample()?.all_anonymous())
    }

    /// How far the total may be off what guest RAM does to it, frames.
    #[must_use]
    pub fn inexact_frames(&self) -> u64 {
        self.inexact_frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tvmm\nVmRSS:\t  400 kB\nRssAnon:\t  200 kB\nRssFile:\t  160 kB\n\
                          RssShmem:\t  40 kB\nVmPTE:\t  52 kB\nVmSwap:\t   80 kB\n";

    #[test]
    fn all_kinds_of_memory_come_from_one_text() {
        let frames = KernelFrames::of_status(STATUS).unwrap();
        assert_eq!(frames, KernelFrames { anonymous: 50, swapped: 20, file: 50 });
        // A page that is swapped out between two samples is in each of them once.
        let later = STATUS.replace("200 kB", "196 kB").replace("80 kB", "84 kB");
        assert_eq!(KernelFrames::of_status(&later).unwrap().all_anonymous(), frames.all_anonymous());
        assert_eq!(KernelFrames::of_status("Name:\tkthread\n"), None, "a process without memory");
    }

    #[test]
    fn this_process_has_memory_of_both_kinds() {
        let total = KernelTotal::open().unwrap();
        let frames = total.sample().unwrap();
        assert!(frames.anonymous > 0 && frames.file > 0, "{frames:?}");
    }
}
