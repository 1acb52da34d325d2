//! What the kernel says in O(1): anonymous memory of a process, and pages of files. It decides whether a scan is
//! worth its cost, and bounds the error after it.

use host::kernel::statm_error_frames;
use host::proc::{Folder, Opened, Status};
use protocol::bytes::FRAME_BYTES;
use std::io;

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
    /// `None` if there are no figures of memory.
    fn of_status(status: &Status) -> Option<Self> {
        let resident = status.resident?;
        Some(Self {
            anonymous: resident.anonymous_bytes / FRAME_BYTES,
            swapped: status.swapped_bytes / FRAME_BYTES,
            file: resident.file_bytes / FRAME_BYTES,
        })
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
    status: Opened<Status>,
    inexact_frames: u64,
}

impl KernelTotal {
    /// Opens the file that it is read from.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn open() -> io::Result<Self> {
        Self::of(&Folder::own())
    }

    /// The same of another process.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        Self::of(&Folder::of(pid))
    }

    fn of(process: &Folder) -> io::Result<Self> {
        Ok(Self { status: Opened::new(process)?, inexact_frames: OWN_FRAMES + statm_error_frames() })
    }

    /// Memory by kind, in one system call: a page that is swapped out between two of them would be in neither sum, or
    /// in both.
    ///
    /// # Errors
    /// When the kernel's answer cannot be read.
    pub fn sample(&self) -> io::Result<KernelFrames> {
        let unknown =
            || io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/status has no figures of memory");
        KernelFrames::of_status(&self.status.read()?).ok_or_else(unknown)
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
    use host::proc::Resident;

    #[test]
    fn a_page_that_is_swapped_out_between_two_samples_is_in_each_of_them_once() {
        let status = |anonymous_kib: u64, swapped_kib: u64| Status {
            resident: Some(Resident { anonymous_bytes: anonymous_kib << 10, file_bytes: 200 << 10 }),
            swapped_bytes: swapped_kib << 10,
            page_tables_bytes: 0,
            has_huge_pages: false,
        };
        let frames = KernelFrames::of_status(&status(200, 80)).unwrap();
        assert_eq!(frames, KernelFrames { anonymous: 50, swapped: 20, file: 50 });
        assert_eq!(KernelFrames::of_status(&status(196, 84)).unwrap().all_anonymous(), 70);
        assert_eq!(KernelFrames::of_status(&Status { resident: None, ..status(0, 0) }), None);
    }

    #[test]
    fn this_process_has_memory_of_both_kinds() {
        let total = KernelTotal::open().unwrap();
        let frames = total.sample().unwrap();
        assert!(frames.anonymous > 0 && frames.file > 0, "{frames:?}");
    }
}
