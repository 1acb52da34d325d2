//! RAM of another process, watched by the kernel's counters of that process.
//!
//! QEMU releases memory without a report, so its total may stay the same while frames come and go. Page faults do
//! not: a frame without host memory gets some only by a fault (`mm_account_fault` in mm/memory.c). Since a pass began
//!
//! ```text
//!   touched   <= faults, times 512 where a fault may bring a huge page
//!   released  =  touched - growth of the total
//! ```
//!
//! and at most as many frames as both together have another state than the pass found. Without faults and with the
//! same total nothing changed, no pass is needed, and the table is exact.

use crate::memory::{KernelTotal, Pass};
use crate::reconciler::Watch;
use host::kernel::statm_error_frames;
use host::proc::{Folder, Opened, Stat, Status};
use protocol::frames::{ErrorSource, FrameTable};
use std::io;

/// Pages of a file that are mapped by one fault (`fault_around_bytes` in mm/memory.c).
const FAULT_AROUND_FRAMES: u64 = 16;
/// Frames that come with one fault where huge pages are allowed.
const HUGE_FRAMES: u64 = 512;

/// The kernel's counters of a process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    total: u64,
    faults: u64,
}

/// Watches the RAM of a machine.
pub(super) struct MachineMemory {
    total: KernelTotal,
    stat: Opened<Stat>,
    frames_per_fault: u64,
    begun: Option<Mark>,
    /// The counters when the last finished pass began.
    compared: Option<Mark>,
}

impl MachineMemory {
    /// Watches a process.
    ///
    /// # Errors
    /// When the process ended.
    pub(super) fn open(pid: i32) -> io::Result<Self> {
        let process = Folder::of(pid);
        let has_huge_pages = process.read::<Status>()?.has_huge_pages;
        Ok(Self {
            total: KernelTotal::of_process(pid)?,
            stat: Opened::new(&process)?,
            frames_per_fault: if has_huge_pages { HUGE_FRAMES } else { 1 },
            begun: None,
            compared: None,
        })
    }

    /// The books before a pass: the faults come first, so that a fault between the two reads counts as one since.
    fn mark_before(&self) -> Option<Mark> {
        mark_before(|| self.faults(), || self.total.frames().ok())
    }

    /// The books now, to be compared with an earlier mark: the faults come last, so that no page is in the total
    /// without its fault.
    fn mark_now(&self) -> Option<Mark> {
        mark_now(|| self.faults(), || self.total.frames().ok())
    }

    fn faults(&self) -> Option<u64> {
        Some(self.stat.read().ok()?.faults)
    }

    /// Frames whose state may have changed since a pass that began at this mark.
    fn error_frames(&self, since: Mark, now: Mark) -> u64 {
        let touched = now.faults.saturating_sub(since.faults).saturating_mul(self.frames_per_fault);
        let released = touched.saturating_add(since.total).saturating_sub(now.total);
        touched.saturating_add(released).saturating_add(statm_error_frames())
    }

    fn publish(&self, table: &FrameTable) -> Option<Pass> {
        let error = match (self.compared, self.mark_now()) {
            (Some(since), Some(now)) if since == now => (0, None),
            (Some(since), Some(now)) => (self.error_frames(since, now), Some(Pass::Full)),
            _ => (u64::MAX, Some(Pass::Full)),
        };
        table.checked(error.0, ErrorSource::Faults);
        // A page of an image is mapped by a fault as well, with up to 15 that the kernel maps around it.
        table.checked_images(error.0.saturating_mul(FAULT_AROUND_FRAMES));
        error.1
    }
}

impl Watch for MachineMemory {
    fn check(&mut self, table: &FrameTable) -> Option<Pass> {
        self.publish(table)
    }

    fn begin(&mut self) {
        self.begun = self.mark_before();
    }

    fn passed(&mut self, table: &FrameTable) {
        self.compared = self.begun;
        self.publish(table);
    }
}

/// Watches nothing: RAM whose frames cannot be scanned. All of them are unknown, and stay so.
pub(super) struct Unseen;

impl Watch for Unseen {
    fn check(&mut self, table: &FrameTable) -> Option<Pass> {
        table.checked(u64::MAX, ErrorSource::Scan);
        None
    }
    fn begin(&mut self) {}
    fn passed(&mut self, _: &FrameTable) {}
}

fn mark_before(faults: impl FnOnce() -> Option<u64>, total: impl FnOnce() -> Option<u64>) -> Option<Mark> {
    let faults = faults()?;
    Some(Mark { total: total()?, faults })
}

fn mark_now(faults: impl FnOnce() -> Option<u64>, total: impl FnOnce() -> Option<u64>) -> Option<Mark> {
    let total = total()?;
    Some(Mark { total, faults: faults()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_between_the_two_reads_of_a_mark_is_in_the_error_whichever_read_is_late() {
        use std::cell::Cell;
        // 1000 frames and 10 faults; meanwhile the guest touches 30 frames and gives 20 others back.
        let (total, count) = (Cell::new(1000), Cell::new(10));
        let touch = |frames| (total.set(total.get() + frames), count.set(count.get() + frames));
        let read = |cell: &Cell<u64>| Some(cell.get());
        let memory = MachineMemory {
            frames_per_fault: 1,
            ..MachineMemory::open(i32::try_from(std::process::id()).unwrap()).unwrap()
        };
        let off = statm_error_frames();
        // 30 frames are touched while the second read of the first mark is late: a pass that begins after it may miss
        // none.
        let since = mark_before(|| read(&count), || (touch(30), read(&total)).1).unwrap();
        let now = mark_now(|| read(&count), || read(&total)).unwrap();
        assert!(memory.error_frames(since, now) - off >= 30);
        // 20 frames are released and 30 touched; the second read of the second mark is late, and 30 more are touched
        // then.
        let since = mark_before(|| read(&count), || read(&total)).unwrap();
        total.set(total.get() - 20);
        touch(30);
        let now = mark_now(|| (touch(30), read(&count)).1, || read(&total)).unwrap();
        assert!(memory.error_frames(since, now) - off >= 50, "{since:?} {now:?}");
        let late = mark_now(|| read(&count), || (touch(30), read(&total)).1).unwrap();
        assert!(memory.error_frames(since, late) - off >= 80, "{since:?} {late:?}");
    }

    #[test]
    fn the_error_counts_frames_that_came_and_frames_that_went() {
        let memory = |frames_per_fault| MachineMemory {
            frames_per_fault,
            ..MachineMemory::open(i32::try_from(std::process::id()).unwrap()).unwrap()
        };
        let since = Mark { total: 1000, faults: 10 };
        let off = statm_error_frames();
        let error = |total, faults| memory(1).error_frames(since, Mark { total, faults }) - off;
        assert_eq!(error(1000, 10), 0);
        assert_eq!(error(1030, 40), 30, "all that came is still there");
        assert_eq!(error(1000, 40), 60, "as much went");
        assert_eq!(error(900, 10), 100);
        assert_eq!(memory(512).error_frames(since, Mark { total: 1000, faults: 11 }) - off, 1024);
    }
}
