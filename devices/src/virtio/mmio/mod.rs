//! The virtio-mmio transport, version 2 (virtio 1.3, section 4.2): registers, negotiation, queues, interrupts.
//!
//! ```text
//!          ACKNOWLEDGE   DRIVER     FEATURES_OK          DRIVER_OK
//!   reset -----------> ----------> -------------> ready -----------> live
//!     ^                 features     features       queues             | rings make no sense
//!     |                 are written  are fixed      are set up         v
//!     +------------------ status = 0 ---------------------------- NEEDS_RESET
//! ```
//!
//! Status bits only ever get added, in this order. A register written at the wrong moment, or with the wrong
//! width, changes nothing and is counted. Queues are set up after FEATURES_OK, one register at a time, and checked as a
//! whole when the driver says QueueReady: only then can an address outside RAM be distinguished from a half-written
//! one.

mod bus;
mod registers;
mod setup;

pub use registers::NOTIFY_OFFSET;

use super::VirtioDevice;
use crate::DeviceMemory;
use crate::irq::Interrupt;
use registers::status;
use setup::QueueSetup;
use std::fmt;
use std::sync::Arc;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

/// Bytes of the register window, device configuration included.
pub const MMIO_WINDOW_BYTES: u64 = 0x1000;

/// What a guest did, and did wrong, to the transport. Counts since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportCounters {
    /// Register accesses of the wrong width, at the wrong moment, or to no register.
    pub bad_accesses: u64,
    /// Status writes that skip or undo a step.
    pub bad_status_writes: u64,
    /// Feature sets that the device does not offer, or without VIRTIO_F_VERSION_1.
    pub refused_features: u64,
    /// Configuration writes that the device refused.
    pub refused_config_writes: u64,
    /// Queues with rings outside RAM, unaligned, or with an impossible number of entries.
    pub bad_queue_setups: u64,
    /// Queues whose rings made no sense while they were served; the device then needs a reset.
    pub queue_errors: u64,
    /// Queue events served.
    pub queue_events: u64,
    /// Interrupts raised for used buffers.
    pub queue_interrupts: u64,
    /// Interrupts raised for a changed configuration.
    pub config_interrupts: u64,
    /// Resets by the driver.
    pub resets: u64,
}

/// A virtio device with its registers and queues.
pub struct VirtioMmio<D: VirtioDevice> {
    mem: DeviceMemory,
    device: D,
    irq: Arc<dyn Interrupt>,
    queues: Vec<QueueSetup>,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    interrupt_status: u32,
    config_generation: u32,
    counters: TransportCounters,
}

impl<D: VirtioDevice> VirtioMmio<D> {
    /// A transport in its reset state. Queues and buffers are in `mem`.
    pub fn new(mem: DeviceMemory, device: D, irq: Arc<dyn Interrupt>) -> Self {
        let queues = device.queue_sizes().iter().map(|&max| QueueSetup::new(max)).collect();
        Self {
            mem,
            device,
            irq,
            queues,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            interrupt_status: 0,
            config_generation: 0,
            counters: TransportCounters::default(),
        }
    }

    /// The device behind the transport.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device behind the transport. What changes its configuration is followed by
    /// [`config_changed`](Self::config_changed), what gives it work by [`queue_event`](Self::queue_event).
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Number of queues. Queue `n` is notified by writing `n` to [`NOTIFY_OFFSET`].
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// What the guest did to the transport.
    pub fn counters(&self) -> &TransportCounters {
        &self.counters
    }

    /// Features offered: those of the device and of this transport.
    pub fn offered_features(&self) -> u64 {
        self.device.features() | 1 << VIRTIO_F_VERSION_1
    }

    /// The driver has set DRIVER_OK and the device works.
    pub fn is_live(&self) -> bool {
        self.status & status::DRIVER_OK != 0 && self.status & status::NEEDS_RESET == 0
    }

    /// Serves one bounded batch of queue `index`, to be called when the driver notified it. True when work
    /// is left: call again. It does nothing for a queue that is not set up or does not exist.
    pub fn queue_event(&mut self, index: usize) -> bool {
        if !self.is_live() {
            return false;
        }
        let Some(queue) = self.queues.get_mut(index).and_then(QueueSetup::ready_mut) else { return false };
        self.counters.queue_events += 1;
        let outcome = self.device.process_queue(&self.mem, index, queue);
        if outcome.interrupt {
            self.counters.queue_interrupts += 1;
            self.interrupt(VIRTIO_MMIO_INT_VRING);
        }
        if outcome.broken {
            self.needs_reset(index);
        }
        outcome.more && !outcome.broken
    }

    /// Notifies the driver that the configuration changed. A driver that is not ready yet finds out by reading it.
    pub fn config_changed(&mut self) {
        self.config_generation = self.config_generation.wrapping_add(1);
        if self.status & status::DRIVER_OK != 0 {
            self.counters.config_interrupts += 1;
            self.interrupt(VIRTIO_MMIO_INT_CONFIG);
        }
    }

    /// The device stops serving until the driver resets it (virtio 1.3, section 2.1.2).
    fn needs_reset(&mut self, index: usize) {
        self.counters.queue_errors += 1;
        tracing::debug!(
            device = self.device.id(),
            queue = index,
            "Virtio queue is unusable, device needs a reset"
        );
        self.status |= status::NEEDS_RESET;
        self.config_changed();
    }

    fn interrupt(&mut self, cause: u32) {
        // The cause is set before the edge: the driver reads it in its interrupt handler.
        self.interrupt_status |= cause;
        self.irq.trigger();
    }

    fn reset(&mut self) {
        self.counters.resets += 1;
        self.device.reset();
        self.queues.iter_mut().for_each(QueueSetup::reset);
        self.status = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.driver_features = 0;
        self.queue_sel = 0;
        self.interrupt_status = 0;
    }
}

impl<D: VirtioDevice> fmt::Debug for VirtioMmio<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioMmio")
            .field("device", &self.device.id())
            .field("status", &self.status)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "mmio_test.rs"]
mod tests;
