//! The buffers of a descriptor chain, checked once and then used without looking at the descriptors again.
//!
//! Drivers may cut a request into descriptors as they like (virtio 1.3, section 2.7.4.1), so devices ask for bytes from
//! the front or the back of what is readable or writable, never for "the second descriptor".

use super::queue::Chain;
use crate::DeviceMemory;
use std::collections::VecDeque;
use std::marker::PhantomData;
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions, VolatileSlice};

/// Why a chain can't be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It has no descriptor, loops, names a descriptor that does not exist or is longer than 4 GiB.
    #[error("Descriptor chain is cut short")]
    Broken,
    /// A readable buffer follows a writable one (virtio 1.3, section 2.7.4.2), or the direction is not what the queue
    /// is for.
    #[error("Descriptor chain has a buffer of the wrong direction")]
    Direction,
    /// The device is to write into an image, which it can only read.
    #[error("Buffer at gpa {gpa:#x} of {len} bytes is in an image, which is read-only")]
    ReadOnly {
        /// Guest physical address of the buffer.
        gpa: u64,
        /// Length in bytes.
        len: u32,
    },
    /// A buffer is not, or not wholly, in guest memory.
    #[error("Buffer at gpa {gpa:#x} of {len} bytes is not in guest memory")]
    OutsideRam {
        /// Guest physical address of the buffer.
        gpa: u64,
        /// Length in bytes.
        len: u32,
    },
}

/// One descriptor: its address, its length, and which side writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Guest physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len: u32,
    /// The device writes to it.
    pub writable: bool,
}

/// Descriptors that one chain may have. No queue here has more entries; only an indirect table, which is not offered,
/// could.
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
    // The iterator ends without an error where it cannot go on; the last descriptor says whether it should have.
    if open { Err(ChainError::Broken) } else { Ok(extents) }
}

/// The readable and the writable bytes of a chain.
#[derive(Debug, Default)]
pub struct Buffers<'m> {
    /// What the driver wrote for the device.
    pub readable: Segments<'m, Readable>,
    /// What the device writes for the driver: none of it in an image.
    pub writable: Segments<'m, Writable>,
}

impl<'m> Buffers<'m> {
    /// The buffers of `chain`, all of them inside guest memory, and those to write inside RAM.
    ///
    /// # Errors
    /// When the chain is malformed, points outside guest memory, or asks for a write into an image.
    pub fn of(mem: &'m DeviceMemory, chain: Chain<'_>) -> Result<Self, ChainError> {
        let mut buffers = Self::default();
        for extent in extents(chain)? {
            if extent.writable {
                buffers.writable.add(mem, extent)
            } else {
                buffers.readable.add(mem, extent)
            }?;
        }
        Ok(buffers)
    }
}

/// What a device may do with bytes of the guest.
pub trait Access {
    /// The right that it needs.
    const NEEDED: Permissions;
}

/// Bytes that a device may only read: they may be those of an image.
#[derive(Debug, Default)]
pub struct Readable;

/// Bytes that a device may write, and read back.
#[derive(Debug, Default)]
pub struct Writable;

impl Access for Readable {
    const NEEDED: Permissions = Permissions::Read;
}

impl Access for Writable {
    const NEEDED: Permissions = Permissions::ReadWrite;
}

/// A run of bytes that lie in several places of guest memory.
#[derive(Debug, Default)]
pub struct Segments<'m, A> {
    slices: VecDeque<VolatileSlice<'m, ()>>,
    len: usize,
    access: PhantomData<A>,
}

impl<'m, A: Access + Default> Segments<'m, A> {
    /// Appends the bytes of a descriptor.
    ///
    /// # Errors
    /// When they are outside guest memory, or not all of them may be accessed so.
    pub(super) fn add(
        &mut self,
        mem: &'m DeviceMemory,
        Extent { gpa, len, .. }: Extent,
    ) -> Result<(), ChainError> {
        let (place, count) = (GuestAddress(gpa), len as usize);
        let outside = |_| match mem.check_range(place, count, Permissions::Read) {
            true => ChainError::ReadOnly { gpa, len },
            false => ChainError::OutsideRam { gpa, len },
        };
        for slice in mem.get_slices(place, count, A::NEEDED).map_err(outside)? {
            self.push(slice.map_err(outside)?);
        }
        Ok(())
    }

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
}

impl Segments<'_, Writable> {
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
