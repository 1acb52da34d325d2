//! A scan of all frames of a guest: what totals do not show.
//!
//! It takes as long as the guest's `vmm` makes it: a table of a terabyte in which no two neighbours are alike takes
//! minutes. So it runs on a thread of its own, without the state's lock, and its result is taken in when it is done.

use crate::pool::GuestSeq;
use host::kernel::thread_cpu;
use protocol::bytes::{BLOCK_BYTES, FRAME_BYTES};
use protocol::frames::{FrameReader, State};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The scans of all guests together may take one part in this many of a CPU.
const CPU_PART: u32 = 100;
/// No more often than this.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Debug, Clone)]
pub struct TableScan {
    /// Private memory by owner id, bytes.
    pub private_bytes: BTreeMap<u16, u64>,
    /// Blocks of 2 MiB in which at least one frame is private.
    pub blocks_used: u64,
    /// When.
    pub at: Instant,
    /// CPU time that it took.
    took: Duration,
}

/// The number of a charge command to one guest, counted from 1 for each registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChargeId(pub u64);

/// A charge command that a `vmm` carried out.
#[derive(Debug, Clone, Copy)]
pub struct ChargeDone {
    /// The command.
    pub id: ChargeId,
    /// Frames that were charged to another container before.
    pub moved_frames: u64,
}

/// A scan to be made.
#[derive(Debug)]
pub struct DueScan {
    /// The guest.
    pub guest: GuestSeq,
    /// Its table.
    pub frames: Arc<FrameReader>,
    /// What it will have seen.
    pub charges_done: Vec<ChargeDone>,
}

impl TableScan {
    /// Reads every run: O(blocks) where the frames of blocks are alike, O(frames) where they are not.
    #[must_use]
    pub fn take(frames: &FrameReader) -> Self {
        const BLOCK: u64 = BLOCK_BYTES / FRAME_BYTES;
        let (at, cpu) = (Instant::now(), thread_cpu());
        let mut private_bytes = BTreeMap::new();
        let (mut blocks_used, mut block_next) = (0, 0);
        frames.for_each_run(|run| {
            let Some(frame) = run.frame.filter(|frame| frame.state == State::Private) else { return };
            *private_bytes.entry(frame.owner).or_default() += run.count * FRAME_BYTES;
            // Runs ascend: a block that an earlier run was in is counted already.
            let (first, end) = ((run.first / BLOCK).max(block_next), (run.first + run.count).div_ceil(BLOCK));
            blocks_used += end.saturating_sub(first);
            block_next = block_next.max(end);
        });
        Self { private_bytes, blocks_used, at, took: thread_cpu().saturating_sub(cpu) }
    }

    /// True if it is time for the next one, with so many guests on the host.
    #[must_use]
    pub fn is_old(&self, guests: usize, now: Instant) -> bool {
        let guests = u32::try_from(guests).unwrap_or(u32::MAX);
        let interval = self.took.saturating_mul(CPU_PART).saturating_mul(guests).max(INTERVAL_MIN);
        now.saturating_duration_since(self.at) >= interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::frames::{FrameTable, Region};
    use std::os::fd::AsFd;

    #[test]
    fn blocks_and_owners_are_counted_once() {
        let table = FrameTable::new(&[Region::ram(512, 5 * 512)]).unwrap();
        table.set_owner(5);
        // All of one block and the start of the next, two frames in that one, nothing, one frame.
        for (first, count) in [(512, 512 + 10), (1030, 1), (1500, 1), (512 * 5, 1)] {
            table.set(first, count, State::Private);
        }
        table.set_owner(6);
        table.set(512 * 5 + 1, 2, State::Private);
        let scan = TableScan::take(&FrameReader::open(table.fd().as_fd()).unwrap());
        assert_eq!(scan.blocks_used, 3);
        // Frame 1030 was in the first run.
        assert_eq!(scan.private_bytes, [(5, 524 * 4096), (6, 2 * 4096)].into());
        assert!(!scan.is_old(1, Instant::now()));
    }
}
