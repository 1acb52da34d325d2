//! Memory of the balancer as backing of the pool. The balancer fills it granule by granule from the image's file,
//! nothing else is in it, and a granule that is evicted is free at once. The head of `admission` says who needs it.
//!
//! The memory is a memfd that is sealed against changes of its length, so that no mapping of it can fail, and against
//! further seals, so that no process can prevent the balancer from filling it. A seal against writing
//! (`F_SEAL_FUTURE_WRITE`) would forbid punching holes as well (`shmem_fallocate` in mm/shmem.c), and with it every
//! eviction. Guests cannot write because they get a read-only descriptor, of a file whose mode allows no writing. A
//! process with the rights of the balancer's user could open it again for writing, as it could write into the store.
//!
//! Reading a hole through a mapping puts a page of zeros there (`shmem_fault`). An honest `vmm` never does: it is
//! stopped by userfaultfd. No granule accounts for pages that came this way; they are found, evicted and reported.

use super::backing::{PoolBacking, Stamp};
use super::numbers::GranuleIndex;
use super::page_set::PageSet;
use super::pagecache::Pagecache;
use accounting::Run;
use protocol::bytes::FRAME_BYTES;
use protocol::image::{Backing, GRANULE_BYTES};
use rustix::fs::{
    FallocateFlags, MemfdFlags, Mode, SealFlags, SeekFrom, fallocate, fchmod, fcntl_add_seals, fstat,
    ftruncate, memfd_create, seek,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

/// Pages of a granule.
pub const GRANULE_PAGES: u64 = GRANULE_BYTES / FRAME_BYTES;

/// The parts of an image that the balancer put into memory.
#[derive(Debug)]
pub struct Managed {
    source: Arc<Pagecache>,
    memory: File,
    bytes: u64,
    /// Length and time of the last writing of the source, before it was verified.
    written: (u64, i64, i64),
}

impl Managed {
    /// Empty memory for the image behind this file. The file has to be verified after this.
    ///
    /// # Errors
    /// When the system has no memfd.
    pub fn new(source: Arc<Pagecache>) -> io::Result<Self> {
        let (bytes, written) = (source.bytes(), written(source.file())?);
        let memory = memfd_create(c"ballast-pool", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, bytes)?;
        fchmod(&memory, Mode::RUSR)?;
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { source, memory: memory.into(), bytes, written })
    }

    /// Granules of the image.
    #[must_use]
    pub fn granules(&self) -> u64 {
        self.bytes / GRANULE_BYTES
    }

    /// Puts a granule into memory. The file's own page cache does not keep it as well.
    ///
    /// # Errors
    /// When the file cannot be read, or is not the one that was verified.
    pub fn fill(&self, granule: GranuleIndex) -> io::Result<()> {
        if granule.0 >= self.granules() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut bytes = [0; GRANULE_BYTES as usize];
        self.source.file().read_exact_at(&mut bytes, granule.0 * GRANULE_BYTES)?;
        // After the reading, so that every earlier write shows.
        if written(self.source.file())? != self.written {
            return Err(io::Error::other("its file was written to after it was verified"));
        }
        self.memory.write_all_at(&bytes, granule.0 * GRANULE_BYTES)?;
        self.source.evict(pages_of(granule))
    }

    /// Releases the memory of a granule. A guest that still maps it has no page there from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn punch(&self, granule: GranuleIndex) -> io::Result<()> {
        self.punch_run(pages_of(granule))
    }

    fn punch_run(&self, run: Run) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.memory, flags, run.first * FRAME_BYTES, run.count * FRAME_BYTES)?)
    }

    /// Memory that the kernel holds for it, bytes.
    ///
    /// # Errors
    /// When it does not say.
    pub fn held_bytes(&self) -> io::Result<u64> {
        Ok(u64::try_from(fstat(&self.memory)?.st_blocks).unwrap_or(0) * 512)
    }

    /// Which memory it is: device and inode.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn inode(&self) -> io::Result<(u64, u64)> {
        let meta = self.memory.metadata()?;
        Ok((meta.dev(), meta.ino()))
    }
}

/// The pages of a granule.
#[must_use]
pub fn pages_of(granule: GranuleIndex) -> Run {
    Run { first: granule.0 * GRANULE_PAGES, count: GRANULE_PAGES }
}

fn written(file: &File) -> io::Result<(u64, i64, i64)> {
    let meta = file.metadata()?;
    Ok((meta.len(), meta.mtime(), meta.mtime_nsec()))
}

impl PoolBacking for Managed {
    fn kind(&self) -> Backing {
        Backing::Managed
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn open_for_guest(&self) -> io::Result<File> {
        host::process::reopen(&self.memory)
    }

    fn mark(&self) -> io::Result<Option<File>> {
        self.source.open_for_guest().map(Some)
    }

    /// The kernel's answer. The granules of the pool know it without asking, and are checked against it.
    fn resident(&self) -> io::Result<PageSet> {
        let mut resident = PageSet::new(self.bytes / FRAME_BYTES);
        let mut at = 0;
        loop {
            let first = match seek(&self.memory, SeekFrom::Data(at)) {
                Ok(first) => first / FRAME_BYTES,
                Err(rustix::io::Errno::NXIO) => return Ok(resident),
                Err(error) => return Err(error.into()),
            };
            at = seek(&self.memory, SeekFrom::Hole(first * FRAME_BYTES))?;
            resident.insert(Run { first, count: (at / FRAME_BYTES).saturating_sub(first) });
        }
    }

    /// For pages that no granule accounts for. The pool evicts granules, for it knows their holders.
    fn evict(&self, run: Run) -> io::Result<()> {
        self.punch_run(run)
    }

    fn as_managed(&self) -> Option<&Managed> {
        Some(self)
    }

    /// The stamp of the image's file.
    fn stamp(&self) -> io::Result<Stamp> {
        self.source.stamp()
    }
}

#[cfg(test)]
#[allow(unsafe_code)]
#[path = "managed_test.rs"]
mod tests;
