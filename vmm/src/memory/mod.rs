//! Guest RAM: private anonymous memory, 2 MiB aligned in the host, so that huge pages can back it.
//!
//! One reservation in the host holds all RAM; guest-physically it has a hole for devices below 4 GiB:
//!
//! ```text
//!  host            |------------ one mapping, 2 MiB aligned ------------|
//!  guest-physical  0 .. 3 GiB           hole           4 GiB .. end
//! ```

mod balloon;
mod drift;
mod huge;
pub mod images;
mod kernel_total;
mod mapping;
mod merge;
mod pagemap;
mod reconcile;
mod release;

pub use balloon::RamBalloon;
pub use drift::{Drift, Mark};
pub use images::Images;
pub use kernel_total::{KernelFrames, KernelTotal};
pub use pagemap::{Method, Pagemap};
pub use reconcile::{Comparison, Pass, Reconciled};
pub use release::Released;

use devices::GuestRam;
use mapping::Mapping;
use protocol::bytes::{BLOCK_BYTES, FRAME_BYTES};
use protocol::frames::Region;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use vm_memory::{GuestAddress, GuestRegionMmap};

/// First address that is not RAM below 4 GiB. The hole holds virtio-mmio windows, IOAPIC and local APICs.
pub const HOLE_START: u64 = 3 << 30;
/// Where RAM goes on above the hole.
pub const HOLE_END: u64 = 4 << 30;

/// Why there is no guest RAM.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The system refused the mapping.
    #[error("Cannot reserve {bytes} bytes for guest RAM")]
    Reserve {
        /// Bytes asked for.
        bytes: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel does not merge it.
    #[error("{}", match (source.raw_os_error(), source.kind()) {
        (Some(libc::EINVAL), _) => "merge is asked for, but this kernel has no KSM (CONFIG_KSM)",
        (None, io::ErrorKind::Unsupported) => {
            "merge is asked for, but this kernel has no PAGEMAP_SCAN (Linux 6.7), without which a merged page looks \
             untouched"
        }
        _ => "Cannot let the kernel merge guest RAM",
    })]
    Merge {
        /// The system's answer.
        source: io::Error,
    },
    /// Built regions do not fit together.
    #[error("Cannot describe guest RAM of {bytes} bytes")]
    Describe {
        /// Bytes of RAM.
        bytes: u64,
    },
}

/// Frames of a 2 MiB block.
const FRAMES_PER_BLOCK: u64 = BLOCK_BYTES / FRAME_BYTES;

/// The guest's RAM.
pub struct Ram {
    mapping: Mapping,
    guest: GuestRam,
    regions: Vec<Region>,
    /// By 2 MiB block: may a huge page back it that was not split yet?
    maybe_huge: Vec<AtomicBool>,
    /// By block: is it advised against huge pages, see `huge`? And the number of such blocks.
    small: Vec<AtomicBool>,
    small_blocks: AtomicUsize,
    releases: release::Releases,
}

impl std::fmt::Debug for Ram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ram").field("regions", &self.regions).finish_non_exhaustive()
    }
}

/// Guest-physical regions for so many bytes of RAM, in frames.
#[must_use]
pub fn regions(bytes: u64) -> Vec<Region> {
    let low = bytes.min(HOLE_START);
    let mut regions = vec![Region::ram(0, low / FRAME_BYTES)];
    if bytes > low {
        regions.push(Region::ram(HOLE_END / FRAME_BYTES, (bytes - low) / FRAME_BYTES));
    }
    regions
}

impl Ram {
    /// Reserves RAM. `bytes` is a multiple of 2 MiB.
    ///
    /// # Errors
    /// When the system refuses the mapping.
    pub fn new(bytes: u64) -> Result<Self, MemoryError> {
        let reserve = |source| MemoryError::Reserve { bytes, source };
        let describe = || MemoryError::Describe { bytes };
        let mapping = Mapping::anonymous(bytes).map_err(reserve)?;
        let mut offset = 0;
        let regions = regions(bytes);
        let mut maps = Vec::new();
        for region in &regions {
            let region_bytes = region.count * FRAME_BYTES;
            let map = mapping.region(offset, region_bytes, true).ok_or_else(describe)?;
            let start = GuestAddress(region.first * FRAME_BYTES);
            maps.push(GuestRegionMmap::new(map, start).ok_or_else(describe)?);
            offset += region_bytes;
        }
        let guest = GuestRam::from_regions(maps).map_err(|_| describe())?;
        let blocks = bytes / BLOCK_BYTES;
        let maybe_huge = (0..blocks).map(|_| AtomicBool::new(true)).collect();
        let small = (0..blocks).map(|_| AtomicBool::new(false)).collect();
        let small_blocks = AtomicUsize::new(0);
        Ok(Self {
            mapping,
            guest,
            regions,
            maybe_huge,
            small,
            small_blocks,
            releases: release::Releases::default(),
        })
    }

    /// The RAM as the devices see it.
    #[must_use]
    pub fn guest(&self) -> &GuestRam {
        &self.guest
    }

    /// Guest-physical regions, in frames.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// First guest-physical address behind RAM and behind the hole.
    #[must_use]
    pub fn end(&self) -> u64 {
        let end = self.regions.last().map_or(0, |region| (region.first + region.count) * FRAME_BYTES);
        end.max(HOLE_END)
    }

    /// All RAM, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.mapping.bytes() as u64
    }

    /// Bytes of RAM that the kernel holds now.
    ///
    /// # Errors
    /// When the pagemap cannot be read.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let pagemap = Pagemap::open()?;
        self.slots().map(|(region, host)| Ok(pagemap.count_held(host, region.count)? * FRAME_BYTES)).sum()
    }

    /// Address in the host of each region, for KVM's memory slots: region and host address.
    pub fn slots(&self) -> impl Iterator<Item = (Region, u64)> + '_ {
        self.regions
            .iter()
            .map(|region| (*region, self.host(region.first, region.count).expect("a region is RAM")))
    }

    /// Address of a run of frames in this process; `None` if it is not RAM as a whole.
    pub(crate) fn host(&self, first: u64, count: u64) -> Option<u64> {
        Some(self.mapping.address() + self.offset(first, count)?)
    }

    /// Offset of a run of frames in the reservation, bytes.
    pub(crate) fn offset(&self, first: u64, count: u64) -> Option<u64> {
        let mut before = 0;
        for region in &self.regions {
            if first >= region.first && count <= region.count && first - region.first <= region.count - count
            {
                return Some((before + first - region.first) * FRAME_BYTES);
            }
            before += region.count;
        }
        None
    }
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;

#[cfg(test)]
#[allow(unsafe_code)]
#[path = "pagemap_test.rs"]
mod pagemap_tests;
