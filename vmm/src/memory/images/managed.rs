//! Images that the balancer fills: their pages are mapped granule by granule, once it says that they are there.
//!
//! ```text
//!   memfd of the balancer, read-only here --> one private mapping, PROT_READ, watched by userfaultfd
//!      nothing mapped --access--> fault --balancer--> granule is there --resume--> mapped
//!            ^                                                                       |
//!            +------------------------- let go (MADV_DONTNEED) ----------------------+
//! ```
//!
//! The mapping is private because the kernel watches none that is shared and cannot be made writable; as it is never written, its pages
//! are the memfd's own. It stays one mapping, whatever is mapped of it, and there is no moment in which it is not watched.

use super::uffd::Uffd;
use super::{Image, ImageError, Images, Mapping};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::{FrameTable, Transition};
use protocol::image::{Backing, GRANULE_BYTES};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

/// A granule of an image: the image by its place among those that the balancer was told of.
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

    /// What to wait for to hear of faults.
    #[must_use]
    pub fn faults(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the descriptor is open for as long as the images are there.
        self.uffd.as_ref().map(|uffd| unsafe { BorrowedFd::borrow_raw(uffd.as_raw_fd()) })
    }

    /// Granules that somebody waits for.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn waited_for(&self) -> io::Result<Vec<Granule>> {
        let Some(uffd) = &self.uffd else { return Ok(vec![]) };
        let granule = |address: u64| {
            self.managed().find_map(|(image, at)| {
                let offset = address.checked_sub(at.start()).filter(|offset| *offset < at.what.bytes)?;
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
        let (Some(uffd), Some((at, first))) = (&self.uffd, self.place(granule)) else { return Ok(false) };
        let mapped = uffd.resume(at, GRANULE_BYTES)?;
        if mapped {
            table.apply(first, GRANULE_BYTES / FRAME_BYTES, Transition::Map);
        }
        Ok(mapped)
    }

    /// Maps a granule no more, and records it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn let_go(&self, granule: Granule, table: &FrameTable) -> io::Result<()> {
        let Some((at, first)) = self.place(granule) else { return Ok(()) };
        zap(at, GRANULE_BYTES)?;
        table.apply(first, GRANULE_BYTES / FRAME_BYTES, Transition::Unmap);
        Ok(())
    }

    /// Maps nothing of any managed image any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn let_all_go(&self, table: &FrameTable) -> io::Result<()> {
        for (_, image) in self.managed() {
            zap(image.start(), image.what.bytes)?;
            table.apply(image.region.first, image.region.count, Transition::Unmap);
        }
        Ok(())
    }

    /// True if this is the memory that an image is mapped from.
    #[must_use]
    pub fn is_same(&self, image: u16, file: &File) -> bool {
        let memory = *self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = self.find(image).and_then(|_| memory.get(usize::from(image)).copied().flatten());
        file.metadata().is_ok_and(|meta| known == Some((meta.dev(), meta.ino())))
    }

    /// Puts other memory in the place of an image, at once for all who look at it. Nothing of it is mapped then. Waits for
    /// somebody to read [`Images::waited_for`].
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
        let new = Mapping::managed(file, there.what.bytes, uffd)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the place is this image's as a whole and stays its; the kernel takes the old mapping away and puts the new one there in
        // one step. Who reads there expects any bytes, and is stopped until they are the image's.
        let moved = unsafe {
            let (from, to) = (new.base.as_ptr().cast::<libc::c_void>(), there.mapping.base.as_ptr());
            libc::mremap(from, new.bytes, new.bytes, flags, to.cast::<libc::c_void>())
        };
        if moved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // There is nothing left at its old place to be unmapped.
        std::mem::forget(new);
        let mut memory = self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        memory[usize::from(image)] = Some((meta.dev(), meta.ino()));
        Ok(())
    }

    /// Managed images, by their places among those that the balancer was told of.
    fn managed(&self) -> impl Iterator<Item = (u16, &Image)> {
        let told = self.all.iter().filter(|image| image.what.digest.is_some());
        (0..).zip(told).filter(|(_, image)| image.what.backing == Backing::Managed)
    }

    fn find(&self, image: u16) -> Option<&Image> {
        self.managed().find(|(at, _)| *at == image).map(|(_, image)| image)
    }

    /// Where a granule is: in this process, and its first frame.
    fn place(&self, granule: Granule) -> Option<(u64, u64)> {
        let image = self.find(granule.image)?;
        let offset = granule.number.checked_mul(GRANULE_BYTES).filter(|offset| *offset < image.what.bytes)?;
        Some((image.start() + offset, image.region.first + offset / FRAME_BYTES))
    }
}

impl Image {
    fn start(&self) -> u64 {
        self.mapping.base.as_ptr() as u64
    }
}

impl Mapping {
    /// A mapping of the balancer's memory, watched from its first moment on that matters: nobody knows of it before.
    pub(super) fn managed(file: &File, bytes: u64, uffd: &Uffd) -> io::Result<Self> {
        // SAFETY: asks for the seals of a descriptor that we own.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err(io::Error::other("it is no memory of a balancer: it could get shorter"));
        }
        let mapping = Self::place(file, bytes, libc::MAP_PRIVATE)?;
        uffd.watch(mapping.base.as_ptr() as u64, bytes)?;
        Ok(mapping)
    }
}

fn zap(at: u64, bytes: u64) -> io::Result<()> {
    let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: inside a mapping of an image, which is never written: the same bytes come back with the next access.
    match unsafe { libc::madvise(at as *mut libc::c_void, bytes, libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Faults can be watched for images, if any is managed.
pub(super) fn watcher(managed: bool) -> Result<Option<Uffd>, ImageError> {
    Ok(if managed { Some(Uffd::open()?) } else { None })
}

#[cfg(test)]
#[path = "managed_test.rs"]
mod tests;
