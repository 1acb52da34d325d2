//! The inflate and deflate queues: lists of frame numbers.

use super::device::Balloon;
use super::pfn::{inside_ram, merge};
use super::{BATCH_CHAINS, BalloonEvent, CHAIN_PFNS_MAX};
use crate::DeviceMemory;
use crate::virtio::buffers::{Buffers, ChainError};
use crate::virtio::queue::{Chain, QueueOutcome, drain_batch};
use virtio_queue::Queue;

/// le32 each.
const PFN_BYTES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Inflate,
    Deflate,
}

impl Balloon {
    /// Serves frame numbers of one event as one: they are merged across descriptors and chains, so that memory is given
    /// back in runs that are as long as possible.
    ///
    /// The used entries come last, and the order carries the protocol. On inflation they say that the frames are gone:
    /// a driver that moves a page (balloon compaction) or takes it back (deflation) must not do so while the host is
    /// still about to drop its contents. On deflation they are what MUST_TELL_HOST makes the driver wait for: it uses
    /// the pages the moment it sees the entry, and by then they have to be accounted as its own again.
    pub(super) fn process_pfns(
        &mut self,
        mem: &DeviceMemory,
        queue: &mut Queue,
        direction: Direction,
    ) -> QueueOutcome {
        let mut pfns = std::mem::take(&mut self.pfns);
        pfns.clear();
        let mut state = (self, pfns);
        let outcome = drain_batch(
            mem,
            queue,
            BATCH_CHAINS,
            &mut state,
            |(balloon, pfns), chain| {
                if read_pfns(mem, chain, pfns).is_err() {
                    balloon.counters.bad_chains += 1;
                }
            },
            |(balloon, pfns)| balloon.apply(pfns, direction),
        );
        // The list keeps its memory for the next event.
        let (balloon, pfns) = state;
        balloon.pfns = pfns;
        outcome
    }

    fn apply(&mut self, pfns: &mut [u32], direction: Direction) {
        let (runs, repeated) = merge(pfns);
        let (runs, refused) = inside_ram(runs, |run| self.backend.is_ram(run));
        self.counters.repeated_frames += repeated;
        self.counters.refused_pfns += refused;
        if runs.is_empty() {
            return;
        }
        let outcome = match direction {
            Direction::Inflate => self.backend.inflate(&runs),
            Direction::Deflate => self.backend.deflate(&runs),
        };
        self.count(&runs, &outcome);
        match direction {
            Direction::Inflate => {
                self.counters.inflated_frames += outcome.changed_frames;
                self.oom.inflated(outcome.changed_frames, self.target_frames());
            }
            Direction::Deflate => {
                self.counters.deflated_frames += outcome.changed_frames;
                let target = self.target_frames();
                let frames = self.oom.deflated(outcome.changed_frames, target, self.held_frames());
                if frames > 0 && self.deflates_on_oom() {
                    self.event(BalloonEvent::OomDeflated { frames });
                }
            }
        }
    }
}

/// Appends the frame numbers of a chain, all of them or none.
fn read_pfns(mem: &DeviceMemory, chain: Chain<'_>, pfns: &mut Vec<u32>) -> Result<(), ChainError> {
    let mut buffers = Buffers::of(mem, chain)?;
    if !buffers.writable.is_empty() {
        return Err(ChainError::Direction);
    }
    let len = buffers.readable.len();
    if !len.is_multiple_of(PFN_BYTES) || len > CHAIN_PFNS_MAX * PFN_BYTES {
        return Err(ChainError::Broken);
    }
    pfns.reserve(len / PFN_BYTES);
    let mut bytes = [0; 1024];
    loop {
        // A number may straddle two descriptors, but never two of these pieces.
        let count = buffers.readable.read(&mut bytes);
        let (numbers, _) = bytes[..count].as_chunks::<PFN_BYTES>();
        pfns.extend(numbers.iter().copied().map(u32::from_le_bytes));
        if count < bytes.len() {
            return Ok(());
        }
    }
}
