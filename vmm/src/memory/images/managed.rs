//! Images that the balancer fills: their pages are mapped granule by granule, once it says that they are there.
//!
//! ```text
//!   memfd of the balancer, read-only here --> one private mapping, PROT_READ, watched by userfaultfd
//!      nothing mapped --access--> fault --balancer--> granule is there --resume--> mapped
//!            ^                                                                       |
//!            +------------------------- unmap (MADV_DONTNEED) -----------------------+
//! ```
//!
//! The mapping is private because the kernel refuses to watch a shared mapping that cannot be made writable; as it is
//! never written to, its pages are the memfd's own. It stays one mapping, whichever granules are mapped, and it is
//! watched at every moment.

use super::super::mapping::{Advice, Mapping, Sharing};
use super::uffd::Uffd;
use super::{Image, ImageError, Images, MappedFile};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::{FrameTable, Transition};
use protocol::image::{Backing, GRANULE_BYTES};
use protocol::sync::MutexExt;
use rustix::fs::{SealFlags, fcntl_get_seals};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

/// A granule of an image: the image by its place among those that were reported to the balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Granule {
    /// The image.
    pub image: u16,
    /// Its number in the image.
    pub number: u64,
}

impl Images {
    /// True if the balancer fills one of them.
    #[must_use]
    pub fn has_managed(&self) -> bool {
        self.uffd.is_some()
    }

    /// The descriptor that is readable when a fault happened.
    #[must_use]
    pub fn faults(&self) -> Option<BorrowedFd<'_>> {
        self.uffd.as_ref().map(AsFd::as_fd)
    }

    /// Granules that a vCPU or a device waits for.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn waited_for(&self) -> io::Result<Vec<Granule>> {
        let Some(uffd) = &self.uffd else { return Ok(vec![]) };
        let granule = |address: u64| {
            self.managed().find_map(|(image, at)| {
                let offset = address.checked_sub(at.address()).filter(|offset| *offset < at.what.bytes)?;
                Some(Granule { image, number: offset / GRANULE_BYTES })
            })
        };
        Ok(uffd.waiting()?.into_iter().filter_map(granule).collect())
    }

    /// Granules of a managed image; `None` if there is no such image.
    #[must_use]
    pub fn granules(&self, image: u16) -> Option<u64> {
        self.find(image).map(|image| image.what.bytes / GRANULE_BYTES)
    }

    /// Maps a granule, and records it. False if the memory does not have it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn map_granule(&self, granule: Granule, table: &FrameTable) -> io::Result<bool> {
        let (Some(uffd), Some((image, offset))) = (&self.uffd, self.find_granule(granule)) else {
            return Ok(false);
        };
        let mapped = uffd.resume(image.address() + offset, GRANULE_BYTES)?;
        if mapped {
            let first = image.region.first + offset / FRAME_BYTES;
            table.apply(first, GRANULE_BYTES / FRAME_BYTES, Transition::Map);
        }
        Ok(mapped)
    }

    /// Unmaps a granule, and records it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn let_go(&self, granule: Granule, table: &FrameTable) -> io::Result<()> {
        let Some((image, offset)) = self.find_granule(granule) else { return Ok(()) };
        image.file.mapping.advise(offset, GRANULE_BYTES, Advice::Release)?;
        let first = image.region.first + offset / FRAME_BYTES;
        table.apply(first, GRANULE_BYTES / FRAME_BYTES, Transition::Unmap);
        Ok(())
    }

    /// Unmaps all granules of all managed images, and records it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn let_all_go(&self, table: &FrameTable) -> io::Result<()> {
        for (_, image) in self.managed() {
            image.file.mapping.advise(0, image.what.bytes, Advice::Release)?;
            table.apply(image.region.first, image.region.count, Transition::Unmap);
        }
        Ok(())
    }

    /// True if this is the memory that an image is mapped from.
    #[must_use]
    pub fn is_same(&self, image: u16, file: &File) -> bool {
        let memory = *self.memory.acquire();
        let known = self.find(image).and_then(|_| memory.get(usize::from(image)).copied().flatten());
        file.metadata().is_ok_and(|meta| known == Some((meta.dev(), meta.ino())))
    }

    /// Puts other memory in the place of an image, in one step for all its readers. No granule of it is mapped
    /// afterwards. Returns after [`Images::waited_for`] was read, which another thread has to do.
    ///
    /// # Errors
    /// When the memory is not what it has to be, or the kernel refuses.
    pub fn replace(&self, image: u16, file: &File) -> io::Result<()> {
        let (Some(uffd), Some(there)) = (&self.uffd, self.find(image)) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let meta = file.metadata()?;
        if meta.len() != there.what.bytes {
            return Err(io::Error::other(format!("{} bytes instead of {}", meta.len(), there.what.bytes)));
        }
        let new = MappedFile::managed(file, there.what.bytes, uffd)?;
        // A reader is stopped until the bytes are the image's.
        there.file.mapping.replace_with(new.mapping)?;
        let mut memory = self.memory.acquire();
        memory[usize::from(image)] = Some((meta.dev(), meta.ino()));
        Ok(())
    }

    /// Managed images, by their places among those that were reported to the balancer.
    fn managed(&self) -> impl Iterator<Item = (u16, &Image)> {
        let told = self.all.iter().filter(|image| image.what.digest.is_some());
        (0..).zip(told).filter(|(_, image)| image.what.backing == Backing::Managed)
    }

    fn find(&self, image: u16) -> Option<&Image> {
        self.managed().find(|(at, _)| *at == image).map(|(_, image)| image)
    }

    /// The image of a granule, and the granule's offset in it.
    fn find_granule(&self, granule: Granule) -> Option<(&Image, u64)> {
        let image = self.find(granule.image)?;
        let offset = granule.number.checked_mul(GRANULE_BYTES).filter(|offset| *offset < image.what.bytes)?;
        Some((image, offset))
    }
}

impl Image {
    /// Its first address in this process.
    pub(super) fn address(&self) -> u64 {
        self.file.mapping.address()
    }
}

impl MappedFile {
    /// A mapping of the balancer's memory. It is watched before its address is known to any other code.
    pub(super) fn managed(file: &File, bytes: u64, uffd: &Uffd) -> io::Result<Self> {
        if !fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK)) {
            return Err(io::Error::other("it is not the memory of a balancer: it could get shorter"));
        }
        let mapping = Mapping::of_file(file, bytes, Sharing::Private)?;
        uffd.watch(mapping.address(), bytes)?;
        Ok(Self { _guard: None, mapping })
    }
}

/// Faults can be watched for images, if any is managed.
pub(super) fn watcher(managed: bool) -> Result<Option<Uffd>, ImageError> {
    Ok(if managed { Some(Uffd::open()?) } else { None })
}

#[cfg(test)]
#[allow(unsafe_code)]
#[path = "managed_test.rs"]
mod tests;
