//! Images of the shared pool in guest-physical memory: files that guests of one host map together, and can only read.
//!
//! ```text
//!  guest-physical  | RAM | hole | RAM ...  |     image 0     |  image 1  |      each begins at a multiple of 128 MiB
//!  host                                    one mapping each: PROT_READ, MAP_SHARED, of a file that is open once
//! ```
//!
//! Neither the guest nor a device can write there: KVM's slot is read-only, so a guest's store is an exit, which is
//! dropped and counted (`vcpu/stores.rs`); devices get [`devices::DeviceMemory`]. A file that gets shorter while it is
//! mapped ends neither the guest nor the process ([`vanish`]). An image that the balancer fills itself is mapped in
//! another way ([`managed`]).

mod managed;
mod open;
#[allow(unsafe_code)]
mod uffd;
#[allow(unsafe_code)]
mod vanish;

pub use managed::Granule;
pub use open::{ImageError, OpenImage, open_path};
pub use uffd::UffdError;
pub use vanish::{heal, install, lost_frames};

use super::mapping::{Mapping, Sharing};
use devices::DeviceMemory;
use protocol::bytes::FRAME_BYTES;
use protocol::frames::Region;
use protocol::image::{Backing, IMAGES_MAX, MappedImage};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use uffd::Uffd;
use vm_memory::{GuestAddress, GuestRegionMmap};

/// Alignment of an image's first address: Linux puts no memory block across it, and namespaces want it (ndctl issue
/// 76).
const ALIGN_BYTES: u64 = 128 << 20;

/// An image where the guest has it.
#[derive(Debug)]
pub struct Image {
    what: OpenImage,
    region: Region,
    file: MappedFile,
}

/// All images of a guest, in the order in which they were named.
#[derive(Debug, Default)]
pub struct Images {
    all: Vec<Image>,
    /// Watches those that the balancer fills, if there are any.
    uffd: Option<Uffd>,
    /// What those are mapped from, device and inode, by their places among those that were reported to the balancer.
    memory: Mutex<[Option<(u64, u64)>; IMAGES_MAX]>,
}

impl Images {
    /// Maps images above `end`, the first guest-physical address behind RAM.
    ///
    /// # Errors
    /// When they are too many, one is there twice, or the system refuses a mapping.
    pub fn map(opened: Vec<OpenImage>, end: u64) -> Result<Self, ImageError> {
        if opened.len() > IMAGES_MAX {
            return Err(ImageError::TooMany { found: opened.len() });
        }
        let uffd = managed::watcher(opened.iter().any(|what| what.backing == Backing::Managed))?;
        let mut images: Vec<Image> = Vec::with_capacity(opened.len());
        let mut at = end.next_multiple_of(ALIGN_BYTES);
        for what in opened {
            if let Some(other) = images.iter().find(|other| other.what.same_file(&what)) {
                return Err(ImageError::Twice { name: what.name, other: other.what.name.clone() });
            }
            let refused = |source| ImageError::Map { name: what.name.clone(), source };
            let file = match &uffd {
                Some(uffd) if what.backing == Backing::Managed => {
                    MappedFile::managed(&what.file, what.bytes, uffd)
                }
                _ => MappedFile::new(&what.file, what.bytes),
            };
            let file = file.map_err(refused)?;
            let region = Region::image(at / FRAME_BYTES, what.bytes / FRAME_BYTES);
            at = (at + what.bytes).next_multiple_of(ALIGN_BYTES);
            images.push(Image { what, region, file });
        }
        let mut memory = [None; IMAGES_MAX];
        let told = images.iter().filter(|image| image.what.digest.is_some());
        memory.iter_mut().zip(told).for_each(|(memory, image)| *memory = Some(image.what.inode()));
        Ok(Self { all: images, uffd, memory: Mutex::new(memory) })
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Number of images.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.all.iter().map(|image| image.what.bytes).sum()
    }

    /// Guest-physical regions in frames, ascending, and where each is in the host: for KVM's slots, and to ask the
    /// kernel.
    pub fn slots(&self) -> impl Iterator<Item = (Region, u64)> {
        self.all.iter().map(|image| (image.region, image.address()))
    }

    /// What is reported to the balancer about them. An image that was named by a path outside a store has no digest,
    /// and does not belong to the pool.
    #[must_use]
    pub fn told(&self) -> Vec<MappedImage> {
        let told = |image: &Image| {
            let Region { first, count, .. } = image.region;
            Some(MappedImage { digest: image.what.digest?, first, count })
        };
        self.all.iter().filter_map(told).collect()
    }

    /// The memory of a guest with these images in it, as devices see it.
    ///
    /// # Errors
    /// Never, in truth: regions of images lie behind RAM and do not overlap.
    pub fn beside(&self, ram: &devices::GuestRam) -> Result<DeviceMemory, ImageError> {
        self.all.iter().try_fold(DeviceMemory::new(ram.clone()), |memory, image| {
            let describe = || ImageError::Describe { name: image.what.name.clone() };
            let map = image.file.mapping.region(0, image.what.bytes, false).ok_or_else(describe)?;
            let start = GuestAddress(image.region.first * FRAME_BYTES);
            let region = GuestRegionMmap::new(map, start).ok_or_else(describe)?;
            memory.with_image(region).map_err(|_| describe())
        })
    }

    /// True if this guest-physical address lies in an image.
    #[must_use]
    pub fn covers(&self, gpa: u64) -> bool {
        self.all.iter().any(|image| image.region.contains(gpa / FRAME_BYTES, 1))
    }
}

/// A file, mapped for reading and for as long as this lives.
#[derive(Debug)]
struct MappedFile {
    /// Of a file that could get shorter. Dropped first: afterwards an access of a late user is no longer healed.
    _guard: Option<vanish::Guard>,
    mapping: Mapping,
}

impl MappedFile {
    fn new(file: &File, bytes: u64) -> io::Result<Self> {
        let mapping = Mapping::of_file(file, bytes, Sharing::Shared)?;
        let base = usize::try_from(mapping.address()).map_err(io::Error::other)?;
        let guard = vanish::Guard::new(base, mapping.bytes(), file.as_raw_fd())?;
        Ok(Self { _guard: Some(guard), mapping })
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
#[path = "images_test.rs"]
mod tests;
