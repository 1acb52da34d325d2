//! Guest memory as devices may use it: RAM, which they read and write, and images of the shared pool, which they only
//! read.
//!
//! An image is mapped without the right to write, so that a store there kills the process. No device can forget to
//! check: this is the only memory that it is given, and the only way to a byte of it is [`GuestMemory`], which asks
//! what for. The queue library goes the same way to its rings.

use crate::GuestRam;
use std::ops::Range;
use std::sync::Arc;
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result};
use vm_memory::region::GuestRegionCollectionError;
use vm_memory::{
    GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, Permissions,
};

/// Guest-physical memory with what devices may do to it.
#[derive(Clone, Debug)]
pub struct DeviceMemory {
    all: GuestRam,
    /// Guest-physical addresses of the images.
    images: Vec<Range<u64>>,
}

impl DeviceMemory {
    /// Memory that is all RAM.
    #[must_use]
    pub fn new(ram: GuestRam) -> Self {
        Self { all: ram, images: Vec::new() }
    }

    /// The same with an image, which devices only read.
    ///
    /// # Errors
    /// When it overlaps what is there.
    pub fn with_image(
        mut self,
        image: GuestRegionMmap<()>,
    ) -> std::result::Result<Self, GuestRegionCollectionError> {
        let start = image.start_addr().0;
        self.images.push(start..start + image.len());
        self.all = self.all.insert_region(Arc::new(image))?;
        Ok(self)
    }

    /// True if this access is allowed, whether or not there is memory.
    fn allows(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        let Some(end) = addr.0.checked_add(count as u64) else { return false };
        !access.has_write() || self.images.iter().all(|image| addr.0 >= image.end || end <= image.start)
    }
}

impl GuestMemory for DeviceMemory {
    type PhysicalMemory = GuestRam;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.allows(addr, count, access) && GuestMemoryBackend::check_range(&self.all, addr, count)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, BS<'a, Self::Bitmap>>> {
        if !self.allows(addr, count, access) {
            return Err(Error::InvalidGuestAddress(addr));
        }
        Ok(GuestMemoryBackend::get_slices(&self.all, addr, count))
    }
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
