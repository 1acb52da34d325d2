//! The console device (virtio 1.3, section 5.3) with one port: a byte stream between the host and `/dev/hvc0`.
//!
//! There is no flow control towards the host: what the guest writes is handed out at once. Towards the guest a bounded
//! buffer waits until the driver has put receive buffers into the queue.

use super::buffers::Buffers;
use super::queue::{QueueOutcome, drain};
use super::{VirtioDevice, read_config_bytes};
use crate::DeviceMemory;
use std::collections::VecDeque;
use std::fmt;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use virtio_queue::Queue;

/// Queue that the guest receives from.
pub const RECEIVE_QUEUE: usize = 0;
/// Queue that the guest transmits to.
pub const TRANSMIT_QUEUE: usize = 1;
/// Bytes that wait for the guest at most.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Bytes that one transmitted chain may carry; the rest of it is dropped and counted.
pub const TRANSMIT_BYTES_MAX: usize = 1024 * 1024;

const QUEUE_SIZES: [u16; 2] = [64, 64];
const BATCH_CHAINS: usize = 16;
const COPY_BYTES: usize = 4096;

/// What went through. Counts since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsoleCounters {
    /// Bytes handed to the guest.
    pub received_bytes: u64,
    /// Bytes that came from the guest.
    pub transmitted_bytes: u64,
    /// Bytes of chains longer than [`TRANSMIT_BYTES_MAX`].
    pub dropped_bytes: u64,
    /// Chains that are malformed, of the wrong direction, or point outside RAM.
    pub bad_chains: u64,
}

/// Where the bytes go that the guest writes, in pieces of any length.
pub type Output = Box<dyn FnMut(&[u8]) + Send>;

/// A console with one port and without MULTIPORT.
pub struct Console {
    out: Output,
    pending: VecDeque<u8>,
    counters: ConsoleCounters,
}

impl Console {
    /// A console that hands what the guest writes to `out`, in pieces of any length.
    pub fn new(out: Output) -> Self {
        Self { out, pending: VecDeque::new(), counters: ConsoleCounters::default() }
    }

    /// Buffers bytes for the guest and returns how many fitted. To be followed by an event of [`RECEIVE_QUEUE`].
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let accepted = bytes.len().min(self.free_input());
        self.pending.extend(&bytes[..accepted]);
        accepted
    }

    /// Bytes that [`input`](Self::input) would accept now.
    pub fn free_input(&self) -> usize {
        INPUT_BYTES_MAX - self.pending.len()
    }

    /// What went through.
    pub fn counters(&self) -> &ConsoleCounters {
        &self.counters
    }

    fn receive(&mut self, mem: &DeviceMemory, queue: &mut Queue) -> QueueOutcome {
        let (pending, counters) = (&mut self.pending, &mut self.counters);
        let mut outcome = QueueOutcome::IDLE;
        for _ in 0..BATCH_CHAINS {
            // Buffers stay in the queue until there is something to put into them.
            if pending.is_empty() {
                break;
            }
            outcome = outcome
                | drain(mem, queue, 1, |chain| match Buffers::of(mem, chain) {
                    Ok(mut buffers) if buffers.readable.is_empty() => {
                        let count = pending.len().min(buffers.writable.len());
                        let written = buffers.writable.write(&pending.make_contiguous()[..count]);
                        pending.drain(..written);
                        counters.received_bytes += written as u64;
                        written as u32
                    }
                    _ => {
                        counters.bad_chains += 1;
                        0
                    }
                });
            if outcome.broken || !outcome.more {
                break;
            }
        }
        // Buffers that are left need no work unless there is input for them.
        outcome.more &= !pending.is_empty();
        outcome
    }

    fn transmit(&mut self, mem: &DeviceMemory, queue: &mut Queue) -> QueueOutcome {
        let (out, counters) = (&mut self.out, &mut self.counters);
        drain(mem, queue, BATCH_CHAINS, |chain| {
            match Buffers::of(mem, chain) {
                Ok(mut buffers) if buffers.writable.is_empty() => {
                    let mut bytes = buffers.readable.take(TRANSMIT_BYTES_MAX);
                    counters.transmitted_bytes += bytes.len() as u64;
                    counters.dropped_bytes += buffers.readable.len() as u64;
                    let mut copy = [0; COPY_BYTES];
                    while !bytes.is_empty() {
                        let count = bytes.read(&mut copy);
                        out(&copy[..count]);
                    }
                }
                _ => counters.bad_chains += 1,
            }
            0
        })
    }
}

impl VirtioDevice for Console {
    fn id(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // Columns, rows and ports are only valid with features that are not offered.
        read_config_bytes(&[], offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) -> bool {
        false
    }

    fn activate(&mut self, _features: u64) {}

    fn process_queue(&mut self, mem: &DeviceMemory, index: usize, queue: &mut Queue) -> QueueOutcome {
        match index {
            RECEIVE_QUEUE => self.receive(mem, queue),
            _ => self.transmit(mem, queue),
        }
    }

    /// Input that waits for the guest stays queued: Linux resets a device before it probes it, and what the host sent
    /// while the guest was booting must not be lost by that.
    fn reset(&mut self) {}
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("pending", &self.pending.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "console_test.rs"]
mod tests;
