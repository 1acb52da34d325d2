//! An address space of devices: one for memory-mapped registers, one for ports.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What a device asks of the machine after a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Go on.
    #[default]
    None,
    /// The guest asked for a reset.
    Reset,
    /// The guest asked for the power to be cut.
    PowerOff,
}

/// A device with registers. It is shared by all vCPUs, so it locks itself.
pub trait BusDevice: Send + Sync {
    /// Reads `data.len()` bytes at `offset` bytes from the start of the device.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Writes `data` at `offset` bytes from the start of the device.
    fn write(&self, offset: u64, data: &[u8]) -> Action;
}

/// Why a device could not be put on a bus. Addresses and lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The range is empty or does not fit into 64 bits.
    #[error("Bus range at {base:#x} of {len:#x} bytes is empty or overflows")]
    Range {
        /// First address asked for.
        base: u64,
        /// Length asked for.
        len: u64,
    },
    /// Another device has a part of the range.
    #[error("Bus range at {base:#x} of {len:#x} bytes overlaps the device at {other:#x}")]
    Overlap {
        /// First address asked for.
        base: u64,
        /// Length asked for.
        len: u64,
        /// First address of the device that is there already.
        other: u64,
    },
}

struct Slot {
    last: u64,
    device: Arc<dyn BusDevice>,
}

/// Devices by address. Built once, then only read, so it needs no lock.
#[derive(Default)]
pub struct Bus {
    slots: BTreeMap<u64, Slot>,
}

impl Bus {
    /// A bus without devices.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` at `base..base + len`.
    ///
    /// # Errors
    /// When the range is empty, overflows, or overlaps that of another device.
    pub fn insert(&mut self, base: u64, len: u64, device: Arc<dyn BusDevice>) -> Result<(), BusError> {
        let last = len
            .checked_sub(1)
            .and_then(|less| base.checked_add(less))
            .ok_or(BusError::Range { base, len })?;
        // Ranges are disjoint, so of all that start at or before `last` only the highest can reach up to `base`.
        if let Some((&other, slot)) = self.slots.range(..=last).next_back()
            && slot.last >= base
        {
            return Err(BusError::Overlap { base, len, other });
        }
        self.slots.insert(base, Slot { last, device });
        Ok(())
    }

    /// Reads from the device at `addr`. Where there is none, `data` becomes all ones, as on real hardware.
    /// Returns whether a device answered.
    pub fn read(&self, addr: u64, data: &mut [u8]) -> bool {
        let Some((offset, device)) = self.find(addr, data.len()) else {
            data.fill(0xff);
            return false;
        };
        device.read(offset, data);
        true
    }

    /// Writes to the device at `addr`; `None` when there is none.
    pub fn write(&self, addr: u64, data: &[u8]) -> Option<Action> {
        let (offset, device) = self.find(addr, data.len())?;
        Some(device.write(offset, data))
    }

    /// The device that holds all of the access. One that straddles the end of a device hits nothing.
    fn find(&self, addr: u64, len: usize) -> Option<(u64, &dyn BusDevice)> {
        let (base, slot) = self.slots.range(..=addr).next_back()?;
        let last = addr.checked_add((len as u64).saturating_sub(1))?;
        (last <= slot.last).then(|| (addr - base, slot.device.as_ref()))
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.slots.iter().map(|(base, slot)| (base, slot.last))).finish()
    }
}

#[cfg(test)]
#[path = "bus_test.rs"]
mod tests;
