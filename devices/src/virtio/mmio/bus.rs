//! Accesses to the register window: widths, the configuration space, notifications.

use super::registers::{CONFIG_OFFSET, NOTIFY_OFFSET};
use super::{VirtioDevice, VirtioMmio};
use crate::bus::{Action, BusDevice};
use std::sync::{Mutex, MutexGuard, PoisonError};

impl<D: VirtioDevice> VirtioMmio<D> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset >= CONFIG_OFFSET {
            self.device.read_config(offset - CONFIG_OFFSET, data);
            return;
        }
        // Registers are 4 bytes wide and are read whole (section 4.2.2.2).
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(word) if offset.is_multiple_of(4) => *word = self.read_register(offset as u32).to_le_bytes(),
            _ => {
                self.counters.bad_accesses += 1;
                data.fill(0);
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= CONFIG_OFFSET {
            if !self.device.write_config(offset - CONFIG_OFFSET, data) {
                self.counters.refused_config_writes += 1;
            }
            return;
        }
        match <[u8; 4]>::try_from(data) {
            Ok(word) if offset.is_multiple_of(4) => {
                self.write_register(offset as u32, u32::from_le_bytes(word))
            }
            _ => self.counters.bad_accesses += 1,
        }
    }
}

fn lock<D: VirtioDevice>(transport: &Mutex<VirtioMmio<D>>) -> MutexGuard<'_, VirtioMmio<D>> {
    // The registers are consistent between any two statements, so a panic elsewhere leaves nothing to protect from.
    transport.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<D: VirtioDevice> BusDevice for Mutex<VirtioMmio<D>> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        lock(self).read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        match <[u8; 4]>::try_from(data) {
            Ok(queue) if offset == NOTIFY_OFFSET => {
                // Without an ioeventfd the vCPU serves the queue itself. The lock is dropped between batches, so that
                // a guest that keeps its queue full delays only itself.
                while lock(self).queue_event(u32::from_le_bytes(queue) as usize) {}
            }
            _ => lock(self).write(offset, data),
        }
        Action::None
    }
}
