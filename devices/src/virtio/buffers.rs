//! The buffers of a descriptor chain, checked once and then used without looking at the descriptors again.
//!
//! Drivers may cut a request into descriptors as they like (virtio 1.3, section 2.7.4.1), so devices ask for bytes from the
//! front or the back of what is readable or writable, never for "the second descriptor".

use super::queue::Chain;
use crate::GuestRam;
use std::collections::VecDeque;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

/// Why a chain can't be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It has no descriptor, loops, names a descriptor that does not exist or is longer than 4 GiB.
    #[error("Descriptor chain is cut short")]
    Broken,
    /// A readable buffer follows a writable one (virtio 1.3, section 2.7.4.2), or the direction is not what the queue is for.
    #[error("Descriptor chain has a buffer of the wrong direction")]
    Direction,
    /// A buffer is not, or not wholly, in guest RAM.
    #[error("Buffer at gpa {gpa:#x} of {len} bytes is not in guest RAM")]
    OutsideRam {
        /// Guest physical address of the buffer.
        gpa: u64,
        /// Length in bytes.
        len: u32,
    },
}

/// One descriptor: where, how long, and who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Guest physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u32,
    /// The device writes to it.
    pub writable: bool,
}

/// Descriptors that one chain may have. No queue here has more entries; only an indirect table, which is not offered, could.
const DESCRIPTORS_MAX: usize = 1024;

/// The descriptors of a chain, whether or not they point into RAM.
///
/// # Errors
/// When the chain is broken or mixes directions in the wrong order.
pub fn extents(chain: Chain<'_>) -> Result<Vec<Extent>, ChainError> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut open = true;
    for descriptor in chain {
        let writable = descriptor.is_write_only();
        if !writable && extents.last().is_some_and(|before| before.writable) {
            return Err(ChainError::Direction);
        }
        if extents.len() == DESCRIPTORS_MAX {
            return Err(ChainError::Broken);
        }
        open = descriptor.has_next();
        extents.push(Extent { gpa: descriptor.addr().0, len: descriptor.len(), writable });
    }
    // The iterator ends in silence where it can't go on; the last descriptor tells whether it should have.
    if open { Err(ChainError::Broken) } else { Ok(extents) }
}

/// The readable and the writable bytes of a chain.
#[derive(Debug, Default)]
pub struct Buffers<'m> {
    /// What the driver wrote for the device.
    pub readable: Segments<'m>,
    /// What the device writes for the driver.
    pub writable: Segments<'m>,
}

impl<'m> Buffers<'m> {
    /// The buffers of `chain`, all of them inside RAM.
    ///
    /// # Errors
    /// When the chain is malformed or points outside RAM.
    pub fn of(mem: &'m GuestRam, chain: Chain<'_>) -> Result<Self, ChainError> {
        let mut buffers = Self::default();
        for Extent { gpa, len, writable } in extents(chain)? {
            let side = if writable { &mut buffers.writable } else { &mut buffers.readable };
            for slice in GuestMemoryBackend::get_slices(mem, GuestAddress(gpa), len as usize) {
                side.push(slice.map_err(|_| ChainError::OutsideRam { gpa, len })?);
            }
        }
        Ok(buffers)
    }
}

/// A run of bytes that lie in several places of guest RAM.
#[derive(Debug, Default)]
pub struct Segments<'m> {
    slices: VecDeque<VolatileSlice<'m, ()>>,
    len: usize,
}

impl<'m> Segments<'m> {
    fn push(&mut self, slice: VolatileSlice<'m, ()>) {
        // At most 4 GiB in all: the chain iterator ends there.
        self.len += slice.len();
        self.slices.push_back(slice);
    }

    /// Bytes left.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The parts, in order.
    pub fn slices(&self) -> impl Iterator<Item = &VolatileSlice<'m, ()>> {
        self.slices.iter()
    }

    /// Takes up to `count` bytes off the front.
    pub fn take(&mut self, count: usize) -> Self {
        let mut taken = Self::default();
        while taken.len < count {
            let Some(first) = self.slices.pop_front() else { break };
            self.len -= first.len();
            match first.split_at((count - taken.len).min(first.len())) {
                Ok((head, tail)) => {
                    taken.push(head);
                    if !tail.is_empty() {
                        self.len += tail.len();
                        self.slices.push_front(tail);
                    }
                }
                Err(_) => break,
            }
        }
        taken
    }

    /// Copies from the front into `data` and returns how many bytes there were.
    pub fn read(&mut self, data: &mut [u8]) -> usize {
        let taken = self.take(data.len());
        let mut done = 0;
        for slice in taken.slices() {
            done += slice.copy_to(&mut data[done..]);
        }
        done
    }

    /// Copies `data` to the front and returns how many bytes there was room for.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let taken = self.take(data.len());
        let mut done = 0;
        for slice in taken.slices() {
            done += slice.write(&data[done..], 0).unwrap_or(0);
        }
        done
    }
}

#[cfg(test)]
#[path = "buffers_test.rs"]
mod tests;
