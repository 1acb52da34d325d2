//! Virtio 1.x devices (OASIS virtio specification 1.3) behind a memory-mapped transport.
//!
//! A device implements [`VirtioDevice`]; [`VirtioMmio`] owns the device, its queues and its registers. Queues are split
//! rings. What is offered is what is served: the transport adds `VIRTIO_F_VERSION_1` and nothing else, so there are no
//! indirect descriptors, no event index and no queue reset.

pub mod balloon;
pub mod block;
pub mod buffers;
pub mod console;
pub mod entropy;
pub mod mmio;
pub mod pmem;
pub mod queue;

pub use balloon::Balloon;
pub use block::Block;
pub use console::Console;
pub use entropy::Entropy;
pub use mmio::{MMIO_WINDOW_BYTES, NOTIFY_OFFSET, TransportCounters, VirtioMmio};
pub use pmem::Pmem;
pub use queue::QueueOutcome;

use crate::DeviceMemory;
use virtio_queue::Queue;

/// A virtio device without its transport.
pub trait VirtioDevice: Send {
    /// Device id (virtio 1.3, section 5): 2 block, 3 console, 4 entropy, 5 balloon, 27 pmem.
    fn id(&self) -> u32;
    /// Features that the device offers, without those of the transport.
    fn features(&self) -> u64;
    /// The greatest number of entries of each queue, each a power of two. Its length is the number of queues.
    fn queue_sizes(&self) -> &[u16];
    /// Reads the configuration space. Bytes outside of it read as 0.
    fn read_config(&self, offset: u64, data: &mut [u8]);
    /// Writes the configuration space; false when the write is refused.
    fn write_config(&mut self, offset: u64, data: &[u8]) -> bool;
    /// The driver is ready and has accepted `features`.
    fn activate(&mut self, features: u64);
    /// Serves one bounded batch of queue `index`, which the driver has set up.
    fn process_queue(&mut self, mem: &DeviceMemory, index: usize, queue: &mut Queue) -> QueueOutcome;
    /// The driver resets the device: everything negotiated is void.
    fn reset(&mut self);
}

/// Copies the part of `config` that an access covers, and zeros for the rest.
pub(crate) fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let Some(rest) = usize::try_from(offset).ok().and_then(|start| config.get(start..)) else { return };
    let len = rest.len().min(data.len());
    data[..len].copy_from_slice(&rest[..len]);
}
