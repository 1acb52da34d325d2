//! Attaching virtio devices: a window on the bus, an interrupt line, an eventfd per queue.

use crate::attached::Attached;
use crate::boot::acpi::MmioNode;
use crate::layout;
use devices::DeviceMemory;
use devices::bus::{Bus, BusError};
use devices::irq::Interrupt;
use devices::virtio::VirtioDevice;
use devices::virtio::mmio::{MMIO_WINDOW_BYTES, NOTIFY_OFFSET, VirtioMmio};
use kvm_ioctls::{IoEventAddress, VmFd};
use std::io;
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Why a device cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// All interrupt lines are taken.
    #[error("At most {} virtio devices fit into one guest", layout::VIRTIO_DEVICES_MAX)]
    TooMany,
    /// The window overlaps another.
    #[error("Cannot place a device on the bus")]
    Bus(#[from] BusError),
    /// No eventfd.
    #[error("Cannot make an eventfd")]
    EventFd(#[source] io::Error),
    /// KVM refused the eventfd.
    #[error("KVM refused an eventfd for {what}")]
    Kvm {
        /// `an interrupt` or `a queue`.
        what: &'static str,
        /// KVM's answer.
        source: kvm_ioctls::Error,
    },
}

/// An interrupt line that is raised by writing an eventfd.
#[derive(Debug)]
pub struct EventFdIrq(EventFd);

impl EventFdIrq {
    /// Connects a new eventfd with an interrupt line.
    ///
    /// # Errors
    /// When the system or KVM refuses.
    pub fn new(vm: &VmFd, gsi: u32) -> Result<Self, AttachError> {
        let fd = EventFd::new(EFD_NONBLOCK).map_err(AttachError::EventFd)?;
        vm.register_irqfd(&fd, gsi).map_err(|source| AttachError::Kvm { what: "an interrupt", source })?;
        Ok(Self(fd))
    }
}

impl Interrupt for EventFdIrq {
    fn trigger(&self) {
        // Fails only when 2^64 - 2 interrupts are pending.
        let _ = self.0.write(1);
    }
}

/// Hands out windows and interrupt lines.
pub struct Attacher<'a> {
    vm: &'a VmFd,
    memory: &'a DeviceMemory,
    bus: &'a mut Bus,
    nodes: Vec<MmioNode>,
}

impl<'a> Attacher<'a> {
    /// Attaches to this VM and bus.
    pub fn new(vm: &'a VmFd, memory: &'a DeviceMemory, bus: &'a mut Bus) -> Self {
        Self { vm, memory, bus, nodes: Vec::new() }
    }

    /// Attaches a device at the next free window.
    ///
    /// # Errors
    /// When no line is left or KVM refuses.
    pub fn attach<D: VirtioDevice + 'static>(&mut self, device: D) -> Result<Attached<D>, AttachError> {
        let index = u32::try_from(self.nodes.len()).expect("at most 19");
        if index >= layout::VIRTIO_DEVICES_MAX {
            return Err(AttachError::TooMany);
        }
        let gsi = layout::VIRTIO_GSI + index;
        let base = layout::MMIO + u64::from(index) * MMIO_WINDOW_BYTES;
        let queues = device.queue_sizes().len();
        let irq = Arc::new(EventFdIrq::new(self.vm, gsi)?);
        let device = Arc::new(Mutex::new(VirtioMmio::new(self.memory.clone(), device, irq)));
        let mut kicks = Vec::with_capacity(queues);
        for queue in 0..u32::try_from(queues).expect("few queues") {
            let kick = EventFd::new(EFD_NONBLOCK).map_err(AttachError::EventFd)?;
            self.vm
                .register_ioevent(&kick, &IoEventAddress::Mmio(base + NOTIFY_OFFSET), queue)
                .map_err(|source| AttachError::Kvm { what: "a queue", source })?;
            kicks.push(kick);
        }
        self.bus.insert(base, MMIO_WINDOW_BYTES, device.clone())?;
        self.nodes.push(MmioNode { base: u32::try_from(base).expect("below 4 GiB"), gsi });
        Ok(Attached { device, kicks })
    }

    /// The attached devices, for the ACPI tables.
    #[must_use]
    pub fn nodes(self) -> Vec<MmioNode> {
        self.nodes
    }
}
