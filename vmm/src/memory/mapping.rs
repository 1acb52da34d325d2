//! Memory that this process maps: guest RAM, and files of images. The one place where the VMM maps, unmaps and advises
//! memory.
//!
//! ```text
//!   reservation, padded by 2 MiB    |....lead....|------- bytes, 2 MiB aligned -------|..tail..|
//!   what stays of it                             |------- bytes, 2 MiB aligned -------|
//! ```
//!
//! Three rules make the functions here safe to call. The bytes are never borrowed as Rust references: guest, devices
//! and kernel change them at any time, so they are only read and written through volatile accessors that expect any
//! bytes. Every offset is checked against the mapping. And a mapping that a guest or its devices can reach is never
//! unmapped: when it is dropped, its addresses become a reservation without access, so that a late access ends the
//! process instead of reading other memory.
#![allow(unsafe_code)]

use protocol::bytes::BLOCK_BYTES;
use rustix::mm::{Advice as MmAdvice, MapFlags, MremapFlags, ProtFlags};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use vm_memory::MmapRegion;
use vm_memory::mmap::MmapRegionBuilder;

/// 2 MiB: huge pages can back a mapping from its first byte on.
const ALIGN_BYTES: usize = BLOCK_BYTES as usize;

/// What a mapping of a file does with writes of other processes and its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// The pages of the file itself.
    Shared,
    /// The pages of the file until they are written to, which a mapping without write access never does.
    Private,
}

/// Advice about a part of a mapping (madvise(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advice {
    /// Release the pages now; the next access finds zeros, or the page of the file (`MADV_DONTNEED`).
    Release,
    /// Release the pages when memory is short; a huge page of which this is a part is split at once (`MADV_FREE`).
    ReleaseLazily,
    /// Huge pages are welcome (`MADV_HUGEPAGE`).
    Huge,
    /// No huge pages (`MADV_NOHUGEPAGE`).
    Small,
    /// Equal pages may be merged (`MADV_MERGEABLE`).
    Merge,
}

/// A mapping, released when it is dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    /// True once a guest or its devices may access it by address.
    is_reachable: AtomicBool,
}

// SAFETY: `base` is an address that is handed to the kernel and to volatile accessors; no thread borrows the bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Anonymous memory for reading and writing, with huge pages where the kernel has them.
    pub fn anonymous(bytes: u64) -> io::Result<Self> {
        let mapping = Self::reserve(bytes, ProtFlags::READ | ProtFlags::WRITE)?;
        // Without huge pages in the kernel this fails, and pages of 4 KiB do as well.
        mapping.advise(0, bytes, Advice::Huge).ok();
        mapping.leave_out_of_dumps();
        Ok(mapping)
    }

    /// A file from its start on, for reading.
    pub fn of_file(file: &File, bytes: u64, sharing: Sharing) -> io::Result<Self> {
        // A reservation first: huge pages of the page cache can be mapped as such at an aligned address alone.
        let mapping = Self::reserve(bytes, ProtFlags::empty())?;
        let kind = match sharing {
            Sharing::Shared => MapFlags::SHARED,
            Sharing::Private => MapFlags::PRIVATE,
        };
        let place = mapping.base.as_ptr().cast();
        // SAFETY: replaces exactly the reservation just made, of which no other code knows.
        unsafe {
            rustix::mm::mmap(place, mapping.bytes, ProtFlags::READ, kind | MapFlags::FIXED, file.as_fd(), 0)?
        };
        mapping.leave_out_of_dumps();
        Ok(mapping)
    }

    /// Private anonymous memory at a boundary of 2 MiB.
    fn reserve(bytes: u64, protection: ProtFlags) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let padded = bytes.checked_add(ALIGN_BYTES).ok_or(io::ErrorKind::OutOfMemory)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice. Its head and its tail are cut off again;
        // between them stay `bytes` at an aligned address, which is not null.
        unsafe {
            let raw = rustix::mm::mmap_anonymous(ptr::null_mut(), padded, protection, flags)?;
            let lead = raw.align_offset(ALIGN_BYTES);
            let base = raw.cast::<u8>().add(lead);
            if lead > 0 {
                rustix::mm::munmap(raw, lead)?;
            }
            if ALIGN_BYTES > lead {
                rustix::mm::munmap(base.add(bytes).cast(), ALIGN_BYTES - lead)?;
            }
            Ok(Self { base: NonNull::new_unchecked(base), bytes, is_reachable: AtomicBool::new(false) })
        }
    }

    /// Its first address in this process.
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Its length.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A part of it as devices access it; `None` if it is not a part.
    pub fn region(&self, offset: u64, bytes: u64, is_writable: bool) -> Option<MmapRegion> {
        let at = self.part(offset, bytes)?;
        let protection = if is_writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        self.is_reachable.store(true, Relaxed);
        // SAFETY: a part of this mapping, whose addresses stay its own for as long as the process runs, see `drop`.
        let builder = unsafe {
            MmapRegionBuilder::new(usize::try_from(bytes).ok()?).with_raw_mmap_pointer(at.as_ptr())
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        builder.with_mmap_prot(protection).with_mmap_flags(flags).build().ok()
    }

    /// Gives advice about a part of it.
    pub fn advise(&self, offset: u64, bytes: u64, advice: Advice) -> io::Result<()> {
        let at = self.part(offset, bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let advice = match advice {
            Advice::Release => MmAdvice::LinuxDontNeed,
            Advice::ReleaseLazily => MmAdvice::LinuxFree,
            Advice::Huge => MmAdvice::LinuxHugepage,
            Advice::Small => MmAdvice::LinuxNoHugepage,
            Advice::Merge => MmAdvice::LinuxMergeable,
        };
        loop {
            // SAFETY: a part of this mapping, whose bytes are only accessed through volatile accessors that expect any
            // bytes.
            match unsafe { rustix::mm::madvise(at.as_ptr().cast(), length, advice) } {
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Puts another mapping of the same length in the place of this one, in one step.
    pub fn replace_with(&self, other: Self) -> io::Result<()> {
        if other.bytes != self.bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (from, to) = (other.base.as_ptr().cast(), self.base.as_ptr().cast());
        // SAFETY: the place is this mapping's as a whole and stays its: the kernel takes the old pages away and puts
        // the new ones there in one step. Its bytes are only accessed through volatile accessors that expect any bytes.
        unsafe { rustix::mm::mremap_fixed(from, self.bytes, self.bytes, MremapFlags::MAYMOVE, to)? };
        // There is nothing left at its old place to be unmapped.
        std::mem::forget(other);
        Ok(())
    }

    /// Reads the first byte, and so has the kernel map the first page.
    pub fn read_first_byte(&self) -> u8 {
        // SAFETY: the first byte of a mapping that can be read and is not empty.
        unsafe { self.base.as_ptr().read_volatile() }
    }

    /// Where a part begins; `None` if it is not a part.
    fn part(&self, offset: u64, bytes: u64) -> Option<NonNull<u8>> {
        let is_inside = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes as u64);
        let offset = usize::try_from(offset).ok().filter(|_| is_inside)?;
        // SAFETY: inside the mapping, or one past its end for an empty part.
        Some(unsafe { self.base.add(offset) })
    }

    /// A core dump of a VMM is about the VMM.
    fn leave_out_of_dumps(&self) {
        // SAFETY: advice about this whole mapping, which changes no byte. A kernel that refuses it dumps more.
        unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.bytes, MmAdvice::LinuxDontDump) }.ok();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (place, flags) =
            (self.base.as_ptr().cast(), MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED);
        // SAFETY: exactly the mapping that `reserve` made. The addresses of a reachable one stay reserved.
        let released = unsafe {
            if *self.is_reachable.get_mut() {
                rustix::mm::mmap_anonymous(place, self.bytes, ProtFlags::empty(), flags).map(drop)
            } else {
                rustix::mm::munmap(place, self.bytes)
            }
        };
        debug_assert!(released.is_ok(), "a whole mapping can be released");
    }
}
