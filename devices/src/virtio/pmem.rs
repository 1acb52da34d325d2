//! The pmem device (virtio 1.3, section 5.19) in front of a read-only image: it says where the image is, and answers
//! flushes.
//!
//! Guest and host share the image's pages, which the guest can't change: there is nothing to make stable. So a flush is
//! answered at once and calls no other code; a guest that storms them costs the host no I/O.

use super::buffers::Buffers;
use super::queue::{QueueOutcome, drain};
use super::{VirtioDevice, read_config_bytes};
use crate::DeviceMemory;
use virtio_bindings::virtio_ids::VIRTIO_ID_PMEM;
use virtio_queue::Queue;

const QUEUE_SIZES: [u16; 1] = [64];
const BATCH_CHAINS: usize = 16;
/// The one request there is (section 5.19.6): le32 type.
const FLUSH: u32 = 0;
/// Its answers: le32 ret.
const RESPONSE_OK: u32 = 0;
const RESPONSE_EIO: u32 = 1;

/// What the guest asked for. Counts since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PmemCounters {
    /// Flushes that were answered.
    pub flushes: u64,
    /// Requests of a type that does not exist.
    pub unsupported: u64,
    /// Chains that are malformed, point outside guest memory, or want their answer in an image.
    pub bad_chains: u64,
}

/// An image in guest-physical memory.
#[derive(Debug)]
pub struct Pmem {
    start: u64,
    bytes: u64,
    counters: PmemCounters,
}

impl Pmem {
    /// A device for `bytes` bytes from guest-physical address `start` on.
    #[must_use]
    pub fn new(start: u64, bytes: u64) -> Self {
        Self { start, bytes, counters: PmemCounters::default() }
    }

    /// What the guest asked for.
    #[must_use]
    pub fn counters(&self) -> &PmemCounters {
        &self.counters
    }

    /// Answers a request and returns the bytes written into its buffers.
    fn serve(&mut self, mut buffers: Buffers<'_>) -> u32 {
        let mut kind = [0; 4];
        if buffers.readable.read(&mut kind) != kind.len() || buffers.writable.len() < 4 {
            self.counters.bad_chains += 1;
            return 0;
        }
        let answer = if u32::from_le_bytes(kind) == FLUSH {
            self.counters.flushes += 1;
            RESPONSE_OK
        } else {
            self.counters.unsupported += 1;
            RESPONSE_EIO
        };
        buffers.writable.write(&answer.to_le_bytes()) as u32
    }
}

impl VirtioDevice for Pmem {
    fn id(&self) -> u32 {
        VIRTIO_ID_PMEM
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_pmem_config: start, size (section 5.19.4).
        let mut config = [0; 16];
        config[..8].copy_from_slice(&self.start.to_le_bytes());
        config[8..].copy_from_slice(&self.bytes.to_le_bytes());
        read_config_bytes(&config, offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) -> bool {
        false
    }

    fn activate(&mut self, _features: u64) {}

    fn process_queue(&mut self, mem: &DeviceMemory, _index: usize, queue: &mut Queue) -> QueueOutcome {
        drain(mem, queue, BATCH_CHAINS, |chain| {
            if let Ok(buffers) = Buffers::of(mem, chain) {
                self.serve(buffers)
            } else {
                self.counters.bad_chains += 1;
                0
            }
        })
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
#[path = "pmem_test.rs"]
mod tests;
