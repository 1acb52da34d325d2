//! The bytes of the table, shared by writer and reader. Every access is atomic: the other side is another process.
//!
//! The only module of this crate with unsafe code: it maps the memory of another process and hands out references to
//! atomics in it.
//!
//! ```text
//!  0        header                                                                   2 pages
//!  8192     blocks: head 8, previous 4, spare 4, counts 16                           32 bytes per 2 MiB block
//!  ...      entries                                                                  4 bytes per frame
//! ```

use super::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use super::block::Block;
use super::ledger::Flows;
use super::region::{Region, RegionKind};
use crate::bytes::{BLOCK_BYTES, FRAME_BYTES};
use crate::image::IMAGES_MAX;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

/// Version of the layout; a table of another version is refused when it is registered.
pub const VERSION: u32 = 4;
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"BALLASTF");
pub(super) const HEADER_BYTES: usize = 8192;
pub(super) const FRAMES_PER_BLOCK: u64 = BLOCK_BYTES / FRAME_BYTES;
/// [`FRAMES_PER_BLOCK`] as an index.
pub(super) const BLOCK_FRAMES: usize = 512;
/// RAM below and above the hole for devices, and images.
pub(super) const REGIONS_MAX: usize = 2 + IMAGES_MAX;
/// Bounds the mapping that a hostile header can ask for: 4 TiB of guest-physical memory.
const FRAMES_MAX: u64 = 1 << 30;

const _: () = assert!(FRAMES_PER_BLOCK == BLOCK_FRAMES as u64 && REGIONS_MAX == 18);

/// Why a table is refused.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The system refused memory or the mapping.
    #[error("Cannot map the frame table")]
    Io(#[from] io::Error),
    /// Not a frame table.
    #[error("This is not a frame table: it starts with {0:#x}")]
    Magic(u64),
    /// Another version.
    #[error("The frame table has version {found}, this program reads version {VERSION}")]
    Version {
        /// The version in the header.
        found: u32,
    },
    /// Regions that overlap, are empty, unaligned or too many.
    #[error("The regions of the frame table are malformed: {0}")]
    Regions(&'static str),
    /// Shorter than its header says.
    #[error("The frame table is truncated: {found} bytes instead of {expected}")]
    Truncated {
        /// Bytes that are there.
        found: u64,
        /// Bytes that the header asks for.
        expected: u64,
    },
    /// The file could still shrink under the reader's mapping.
    #[error("The frame table is not sealed against shrinking")]
    Unsealed,
}

/// The header: fields that stay, then fields that writers change.
#[repr(C)]
pub(super) struct Header {
    pub magic: AtomicU64,
    pub version: AtomicU32,
    pub region_count: AtomicU32,
    pub regions: [RegionCell; REGIONS_MAX],
    pub _unused: AtomicU32,
    /// How `error_frames` was obtained, see [`ErrorSource`](super::ErrorSource).
    pub error_source: AtomicU32,
    /// 1: it is not known why a frame of RAM has no host memory, so untouched means unknown.
    pub residency_only: AtomicU32,
    pub _spare: AtomicU32,
    /// Upper bound of the frames whose state was wrong at `checked_at_ns`.
    pub error_frames: AtomicU64,
    /// `CLOCK_MONOTONIC` of the last reading of the kernel's total, nanoseconds; 0 for never.
    pub checked_at_ns: AtomicU64,
    /// `CLOCK_MONOTONIC` of the last comparison frame by frame, nanoseconds; 0 for never.
    pub reconciled_at_ns: AtomicU64,
    /// Upper bound of the pages of images that were mapped and not recorded yet at `images_checked_at_ns`.
    pub images_error_frames: AtomicU64,
    /// `CLOCK_MONOTONIC` of the last reading of the kernel's total of file pages, nanoseconds; 0 for never.
    pub images_checked_at_ns: AtomicU64,
    /// Stores of the guest into images; frames of images whose file got shorter.
    pub image_stores: AtomicU64,
    pub image_lost_frames: AtomicU64,
    /// Ticks of the clock of ages.
    pub tick: AtomicU64,
    /// Operations that began, and operations that ended. Equal while no writer is at work.
    pub begun: Line,
    pub ended: Line,
    /// Frames that went from one state to another, by region.
    pub flows: [Flows; REGIONS_MAX],
}

/// A region in the header.
#[repr(C)]
pub(super) struct RegionCell {
    first: AtomicU64,
    count: AtomicU64,
    kind: AtomicU32,
    _spare: AtomicU32,
}

impl RegionCell {
    pub fn store(&self, region: &Region) {
        self.first.store(region.first, Relaxed);
        self.count.store(region.count, Relaxed);
        self.kind.store(region.kind as u32, Relaxed);
    }

    fn load(&self) -> Result<Region, LayoutError> {
        let kind = RegionKind::from_bits(self.kind.load(Relaxed))
            .ok_or(LayoutError::Regions("each must be RAM or an image"))?;
        Ok(Region { first: self.first.load(Relaxed), count: self.count.load(Relaxed), kind })
    }
}

/// A counter that writers on several CPUs add to, with a cache line of its own.
#[repr(C, align(64))]
pub(super) struct Line(pub AtomicU64);

/// What precedes the frames of a block.
#[repr(C)]
pub(super) struct BlockCell {
    pub head: AtomicU64,
    pub previous: AtomicU32,
    _spare: AtomicU32,
    pub counts: [AtomicU64; 2],
}

const _: () = assert!(size_of::<Header>() <= HEADER_BYTES && size_of::<BlockCell>() == 32);

/// A mapped table.
pub(super) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
    blocks: usize,
}

// SAFETY: all access goes through atomics, the mapping is never moved or resized.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Bytes of a table for this number of frames.
pub(super) fn table_bytes(frames: u64) -> Result<usize, LayoutError> {
    if frames == 0 || frames > FRAMES_MAX || !frames.is_multiple_of(FRAMES_PER_BLOCK) {
        return Err(LayoutError::Regions("frames must be whole blocks of 2 MiB, at most 4 TiB"));
    }
    let frames = usize::try_from(frames).map_err(|_| LayoutError::Regions("too many frames"))?;
    let blocks = frames / BLOCK_FRAMES;
    Ok(HEADER_BYTES + blocks * size_of::<BlockCell>() + frames * size_of::<AtomicU32>())
}

/// Checks regions and returns the sum of their frames.
pub(super) fn check_regions(regions: &[Region]) -> Result<u64, LayoutError> {
    if regions.is_empty() || regions.len() > REGIONS_MAX {
        return Err(LayoutError::Regions("there must be 1 to 18"));
    }
    let mut end_before = 0;
    let mut frames = 0u64;
    for region in regions {
        let aligned =
            region.first.is_multiple_of(FRAMES_PER_BLOCK) && region.count.is_multiple_of(FRAMES_PER_BLOCK);
        if region.count == 0 || !aligned {
            return Err(LayoutError::Regions("each must be whole blocks of 2 MiB"));
        }
        let end = region.first.checked_add(region.count).ok_or(LayoutError::Regions("one wraps around"))?;
        if region.first < end_before {
            return Err(LayoutError::Regions("they must ascend and not overlap"));
        }
        end_before = end;
        frames = frames.checked_add(region.count).ok_or(LayoutError::Regions("too many frames"))?;
    }
    Ok(frames)
}

impl Mapping {
    pub(super) fn new(fd: BorrowedFd<'_>, frames: u64, writable: bool) -> Result<Self, LayoutError> {
        let bytes = table_bytes(frames)?;
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh shared mapping of a descriptor that the caller lends; no existing memory is touched.
        let base = unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, fd, 0) };
        let base = base.map_err(io::Error::from)?;
        let base = NonNull::new(base.cast()).expect("mmap without a hint never returns page 0");
        let blocks = usize::try_from(frames / FRAMES_PER_BLOCK)
            .map_err(|_| LayoutError::Regions("too many frames"))?;
        Ok(Self { base, bytes, blocks })
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: the mapping is page aligned and longer than a header, whose fields are atomics valid for any bits.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    /// Number of blocks.
    pub(super) fn block_count(&self) -> usize {
        self.blocks
    }

    /// A block.
    pub(super) fn block(&self, index: usize) -> Block<'_> {
        let cell = &self.cells()[index];
        let entries = &self.entries()[index * BLOCK_FRAMES..][..BLOCK_FRAMES];
        Block { head: &cell.head, previous: &cell.previous, counts: &cell.counts, entries }
    }

    fn cells(&self) -> &[BlockCell] {
        // SAFETY: `table_bytes` reserved this part behind the header; 32-byte items at a page boundary are aligned, and
        // their fields are atomics valid for any bits.
        unsafe { std::slice::from_raw_parts(self.base.add(HEADER_BYTES).cast().as_ptr(), self.blocks) }
    }

    fn entries(&self) -> &[AtomicU32] {
        let offset = HEADER_BYTES + self.blocks * size_of::<BlockCell>();
        // SAFETY: `table_bytes` reserved this part behind the blocks; the offset is a multiple of 32.
        unsafe {
            std::slice::from_raw_parts(self.base.add(offset).cast().as_ptr(), self.blocks * BLOCK_FRAMES)
        }
    }

    /// The regions that the header names, read once.
    pub(super) fn regions(&self) -> Result<Vec<Region>, LayoutError> {
        let header = self.header();
        let count = header.region_count.load(Relaxed) as usize;
        let named = header.regions.get(..count).ok_or(LayoutError::Regions("there must be 1 to 18"))?;
        named.iter().map(RegionCell::load).collect()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made; no reference outlives `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "a whole mapping can be unmapped");
    }
}
