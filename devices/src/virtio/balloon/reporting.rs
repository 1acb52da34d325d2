//! Free page reporting (virtio 1.3, section 5.5.6.6): blocks of memory that the guest does not use.

use super::device::Balloon;
use super::{BATCH_CHAINS, FRAME_SHIFT, FrameRun};
use crate::DeviceMemory;
use crate::virtio::buffers::{Extent, extents};
use crate::virtio::queue::{Chain, QueueOutcome, drain_batch};
use virtio_queue::Queue;

impl Balloon {
    /// Gives back what is reported. The guest keeps the blocks allocated until it sees the used entries, which
    /// therefore come after the memory is gone: given back any later, it would take contents that the guest has written
    /// since.
    pub(super) fn process_reports(&mut self, mem: &DeviceMemory, queue: &mut Queue) -> QueueOutcome {
        let mut state = (self, Vec::new());
        drain_batch(
            mem,
            queue,
            BATCH_CHAINS,
            &mut state,
            |(balloon, runs), chain| balloon.collect(chain, runs),
            |(balloon, runs)| balloon.report(runs),
        )
    }

    fn collect(&mut self, chain: Chain<'_>, runs: &mut Vec<FrameRun>) {
        match extents(chain) {
            Ok(blocks) if blocks.iter().all(|block| block.writable) => {
                for block in blocks {
                    match whole_frames(block).filter(|&run| self.backend.is_ram(run)) {
                        Some(run) => runs.push(run),
                        None => self.counters.refused_reports += 1,
                    }
                }
            }
            _ => self.counters.bad_chains += 1,
        }
    }

    fn report(&mut self, runs: &mut Vec<FrameRun>) {
        let (runs, repeated) = join(std::mem::take(runs));
        self.counters.repeated_frames += repeated;
        if runs.is_empty() {
            return;
        }
        let outcome = self.backend.report(&runs);
        self.count(&runs, &outcome);
        self.counters.reported_frames += outcome.changed_frames;
    }
}

/// The frames that lie wholly inside a block: what it shares with its neighbours is not free.
fn whole_frames(block: Extent) -> Option<FrameRun> {
    let frame_bytes = 1 << FRAME_SHIFT;
    let first = block.gpa.div_ceil(frame_bytes);
    let end = block.gpa.checked_add(block.len.into())? >> FRAME_SHIFT;
    end.checked_sub(first).filter(|&count| count > 0).map(|count| FrameRun { first, count })
}

/// Sorts runs and joins those that touch or overlap. Returns also how many frames were in more than one.
fn join(mut runs: Vec<FrameRun>) -> (Vec<FrameRun>, u64) {
    runs.sort_unstable();
    let mut joined: Vec<FrameRun> = Vec::with_capacity(runs.len());
    let mut repeated = 0;
    for run in runs {
        match joined.last_mut() {
            Some(last) if run.first <= last.first + last.count => {
                let end = (run.first + run.count).max(last.first + last.count);
                repeated += run.count - (end - (last.first + last.count));
                last.count = end - last.first;
            }
            _ => joined.push(run),
        }
    }
    (joined, repeated)
}

#[cfg(test)]
#[path = "reporting_test.rs"]
mod tests;
