//! The entropy device (virtio 1.3, section 5.4): random bytes from the host's kernel.

use super::buffers::Buffers;
use super::queue::{QueueOutcome, drain};
use super::{VirtioDevice, read_config_bytes};
use crate::DeviceMemory;
use rustix::rand::GetRandomFlags;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use virtio_queue::Queue;

/// Bytes given for one request. A guest that asks for more sees that it got less, which the device may (section
/// 5.4.6.1).
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
const QUEUE_SIZES: [u16; 1] = [64];
const BATCH_CHAINS: usize = 16;
/// Bytes asked of the kernel at a time: up to this number it answers in full (getrandom(2)).
const RANDOM_BYTES: usize = 256;

/// What the guest asked for. Counts since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntropyCounters {
    /// Random bytes given.
    pub given_bytes: u64,
    /// Requests that are malformed or point outside RAM.
    pub bad_chains: u64,
}

/// A source of entropy.
#[derive(Debug, Default)]
pub struct Entropy {
    counters: EntropyCounters,
}

impl Entropy {
    /// A device that reads `getrandom(2)`.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the guest asked for.
    pub fn counters(&self) -> &EntropyCounters {
        &self.counters
    }
}

impl VirtioDevice for Entropy {
    fn id(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&[], offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) -> bool {
        false
    }

    fn activate(&mut self, _features: u64) {}

    fn process_queue(&mut self, mem: &DeviceMemory, _index: usize, queue: &mut Queue) -> QueueOutcome {
        let counters = &mut self.counters;
        drain(mem, queue, BATCH_CHAINS, |chain| match Buffers::of(mem, chain) {
            Ok(buffers) if buffers.readable.is_empty() => {
                let given = fill(buffers);
                counters.given_bytes += u64::from(given);
                given
            }
            _ => {
                counters.bad_chains += 1;
                0
            }
        })
    }

    fn reset(&mut self) {}
}

/// Fills the writable buffers from the start and returns how many bytes are random now.
fn fill(mut buffers: Buffers<'_>) -> u32 {
    let mut random = [0; RANDOM_BYTES];
    let mut given = 0;
    for slice in buffers.writable.take(REQUEST_BYTES_MAX).slices() {
        let mut at = 0;
        while at < slice.len() {
            let wanted = (slice.len() - at).min(RANDOM_BYTES);
            let got = match rustix::rand::getrandom(&mut random[..wanted], GetRandomFlags::empty()) {
                Ok(got) if got > 0 => got,
                _ => return given,
            };
            slice.subslice(at, got).expect("inside the slice").copy_from(&random[..got]);
            at += got;
            given += got as u32;
        }
    }
    given
}

#[cfg(test)]
#[path = "entropy_test.rs"]
mod tests;
