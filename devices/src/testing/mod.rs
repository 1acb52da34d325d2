//! What stands in for a guest: a driver that speaks to any device through its registers, and a balloon backend in plain
//! memory.

mod driver;
pub mod fuzz;
mod ram;

pub use driver::{Buffer, FakeGuest};
pub use ram::{FakeRam, FrameState};

use crate::irq::Interrupt;
use crate::{DeviceMemory, GuestRam};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap};

/// Where [`memory_with_image`] has its image.
pub const IMAGE_BASE: u64 = 1 << 32;

/// RAM of this size at 0.
///
/// # Panics
/// When the system has no memory for it.
pub fn memory(ram_bytes: usize) -> DeviceMemory {
    let ram = GuestRam::from_ranges(&[(GuestAddress(0), ram_bytes)]).expect("guest RAM can be mapped");
    DeviceMemory::new(ram)
}

/// A file in memory with these bytes.
///
/// # Panics
/// When the system has no memory for it.
pub fn memory_file(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create(c"test", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    let file = File::from(fd);
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).expect("a memfd can be written");
    file
}

/// RAM of this size at 0, and an image with these bytes at [`IMAGE_BASE`], mapped as a VMM maps it: a store there is a
/// fault.
///
/// # Panics
/// When the system has no memory for it.
pub fn memory_with_image(ram_bytes: usize, image: &[u8]) -> DeviceMemory {
    let file = memory_file(image);
    let map = MmapRegionBuilder::new(image.len())
        .with_mmap_prot(libc::PROT_READ)
        .with_mmap_flags(libc::MAP_SHARED)
        .with_file_offset(FileOffset::new(file, 0))
        .build()
        .expect("an image can be mapped");
    let region = GuestRegionMmap::new(map, GuestAddress(IMAGE_BASE)).expect("an image has a place");
    memory(ram_bytes).with_image(region).expect("an image next to RAM")
}

/// An interrupt line that counts.
#[derive(Debug, Default)]
pub struct RecordingIrq(AtomicUsize);

impl RecordingIrq {
    /// Edges so far.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Interrupt for RecordingIrq {
    fn trigger(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A writer whose clones write to the same place.
#[derive(Clone, Debug, Default)]
pub struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    /// What was written so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Appends bytes.
    pub fn append(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
