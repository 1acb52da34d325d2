//! The register file (virtio 1.3, section 4.2.2, table 4.1).

use super::setup::{QueueSetup, RingAddresses};
use super::{VirtioDevice, VirtioMmio};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_mmio as reg;

/// Offset of the QueueNotify register: a 4-byte write of the queue's index, also through an ioeventfd.
pub const NOTIFY_OFFSET: u64 = reg::VIRTIO_MMIO_QUEUE_NOTIFY as u64;
/// Offset of the device's configuration space.
pub(super) const CONFIG_OFFSET: u64 = reg::VIRTIO_MMIO_CONFIG as u64;

/// "virt" in little endian.
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// The transport of virtio 1.0 and later.
const VERSION: u32 = 2;
/// There is no registry for these; Linux shows it in sysfs.
const VENDOR: u32 = u32::from_le_bytes(*b"BLST");
/// What the shared memory registers say where there is no such region (section 4.2.2).
const NO_SHARED_MEMORY: u32 = u32::MAX;

/// Device status bits (virtio 1.3, section 2.1).
pub(super) mod status {
    use virtio_bindings::virtio_config as config;

    pub const ACKNOWLEDGE: u32 = config::VIRTIO_CONFIG_S_ACKNOWLEDGE;
    pub const DRIVER: u32 = config::VIRTIO_CONFIG_S_DRIVER;
    pub const FEATURES_OK: u32 = config::VIRTIO_CONFIG_S_FEATURES_OK;
    pub const DRIVER_OK: u32 = config::VIRTIO_CONFIG_S_DRIVER_OK;
    pub const NEEDS_RESET: u32 = config::VIRTIO_CONFIG_S_NEEDS_RESET;
    pub const FAILED: u32 = config::VIRTIO_CONFIG_S_FAILED;

    /// Bits of the driver, each of which needs all before it.
    pub const STEPS: [u32; 4] = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];
}

impl<D: VirtioDevice> VirtioMmio<D> {
    /// Reads a 4-byte register below the configuration space.
    pub(super) fn read_register(&mut self, offset: u32) -> u32 {
        match offset {
            reg::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            reg::VIRTIO_MMIO_VERSION => VERSION,
            reg::VIRTIO_MMIO_DEVICE_ID => self.device.id(),
            reg::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            reg::VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered_features(), self.device_features_sel),
            reg::VIRTIO_MMIO_QUEUE_NUM_MAX => self.selected().map_or(0, |queue| queue.max().into()),
            reg::VIRTIO_MMIO_QUEUE_READY => self.selected().map_or(0, |queue| queue.is_ready().into()),
            reg::VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt_status,
            reg::VIRTIO_MMIO_STATUS => self.status,
            reg::VIRTIO_MMIO_SHM_LEN_LOW
            | reg::VIRTIO_MMIO_SHM_LEN_HIGH
            | reg::VIRTIO_MMIO_SHM_BASE_LOW
            | reg::VIRTIO_MMIO_SHM_BASE_HIGH => NO_SHARED_MEMORY,
            reg::VIRTIO_MMIO_CONFIG_GENERATION => self.config_generation,
            _ => {
                self.counters.bad_accesses += 1;
                0
            }
        }
    }

    /// Writes a 4-byte register below the configuration space. QueueNotify is not among them.
    pub(super) fn write_register(&mut self, offset: u32, value: u32) {
        match offset {
            reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_sel = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES => self.write_driver_features(value),
            reg::VIRTIO_MMIO_QUEUE_SEL => self.queue_sel = value,
            reg::VIRTIO_MMIO_QUEUE_NUM => self.set_up(|queue| queue.set_entries(value)),
            reg::VIRTIO_MMIO_QUEUE_READY => self.write_queue_ready(value),
            reg::VIRTIO_MMIO_QUEUE_DESC_LOW => self.set_address(|rings| set_low(&mut rings.desc, value)),
            reg::VIRTIO_MMIO_QUEUE_DESC_HIGH => self.set_address(|rings| set_high(&mut rings.desc, value)),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW => self.set_address(|rings| set_low(&mut rings.avail, value)),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => self.set_address(|rings| set_high(&mut rings.avail, value)),
            reg::VIRTIO_MMIO_QUEUE_USED_LOW => self.set_address(|rings| set_low(&mut rings.used, value)),
            reg::VIRTIO_MMIO_QUEUE_USED_HIGH => self.set_address(|rings| set_high(&mut rings.used, value)),
            reg::VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt_status &= !value,
            reg::VIRTIO_MMIO_STATUS => self.write_status(value),
            reg::VIRTIO_MMIO_SHM_SEL => {}
            _ => self.counters.bad_accesses += 1,
        }
    }

    fn selected(&self) -> Option<&QueueSetup> {
        self.queues.get(self.queue_sel as usize)
    }

    fn write_driver_features(&mut self, value: u32) {
        let open = self.status & (status::DRIVER | status::FEATURES_OK) == status::DRIVER;
        match self.driver_features_sel {
            0 if open => set_low(&mut self.driver_features, value),
            1 if open => set_high(&mut self.driver_features, value),
            // Features from 64 on are not offered: accepting none of them is right at any time.
            2.. if value == 0 => {}
            _ => self.counters.bad_accesses += 1,
        }
    }

    fn set_up(&mut self, change: impl FnOnce(&mut QueueSetup)) {
        let open = self.status & (status::FEATURES_OK | status::NEEDS_RESET) == status::FEATURES_OK;
        match self.queues.get_mut(self.queue_sel as usize) {
            Some(queue) if open && !queue.is_ready() => change(queue),
            _ => self.counters.bad_accesses += 1,
        }
    }

    fn set_address(&mut self, change: impl FnOnce(&mut RingAddresses)) {
        self.set_up(|queue| change(&mut queue.addresses));
    }

    fn write_queue_ready(&mut self, value: u32) {
        if value == 0 {
            // Allowed at any time: Linux does it while it tears a device down, after the reset.
            if let Some(queue) = self.queues.get_mut(self.queue_sel as usize) {
                queue.disable();
            }
            return;
        }
        let mem = self.mem.clone();
        let mut result = Ok(());
        self.set_up(|queue| result = queue.enable(&mem));
        if result.is_err() {
            self.counters.bad_queue_setups += 1;
            tracing::debug!(device = self.device.id(), queue = self.queue_sel, "Virtio queue set-up refused");
        }
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        // NEEDS_RESET is the device's own; a driver that reads, adds a bit and writes back must not be confused by it.
        let value = value & !status::NEEDS_RESET;
        let old = self.status & !status::NEEDS_RESET;
        let known = status::STEPS.into_iter().fold(status::FAILED, |all, bit| all | bit);
        let steps = value & !status::FAILED;
        // The steps taken must be a beginning of the list: 0, 1, 3, 11 or 15.
        let in_order = status::STEPS.windows(2).all(|pair| steps & pair[1] == 0 || steps & pair[0] != 0);
        if value & !known != 0 || old & !value != 0 || !in_order {
            self.counters.bad_status_writes += 1;
            return;
        }
        let mut added = value & !old;
        if added & status::FEATURES_OK != 0 && !self.features_acceptable() {
            // The bit stays clear, which the driver has to look for (section 3.1.1, step 6), and with it all that
            // follow.
            self.counters.refused_features += 1;
            added &= !(status::FEATURES_OK | status::DRIVER_OK);
        }
        self.status |= added;
        if added & status::DRIVER_OK != 0 {
            self.device.activate(self.driver_features);
            self.serve_early_buffers();
        }
    }

    /// Linux's balloon driver notifies its statistics queue before it sets DRIVER_OK, against section 3.1.1, when the
    /// device may not look at the queue yet. So every queue is served once the driver is ready.
    fn serve_early_buffers(&mut self) {
        for index in 0..self.queues.len() {
            // More rounds than a queue has entries: what comes later comes with its own notification.
            let rounds = self.queues[index].max();
            for _ in 0..rounds {
                if !self.queue_event(index) {
                    break;
                }
            }
        }
    }

    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.offered_features() == 0
            && self.driver_features & 1 << VIRTIO_F_VERSION_1 != 0
    }
}

fn half(value: u64, sel: u32) -> u32 {
    match sel {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_low(target: &mut u64, value: u32) {
    *target = *target & !0xffff_ffff | u64::from(value);
}

fn set_high(target: &mut u64, value: u32) {
    *target = *target & 0xffff_ffff | u64::from(value) << 32;
}
