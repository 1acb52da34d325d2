//! The ranges of a request to discard sectors or to fill them with zeros (`struct virtio_blk_discard_write_zeroes`,
//! virtio 1.3, section 5.2.6).

use super::{Refusal, SECTOR_BYTES};
use crate::virtio::buffers::{Readable, Segments};
use virtio_bindings::virtio_blk as blk;

/// le64 sector, le32 number of sectors, le32 flags.
const RANGE_BYTES: usize = 16;

/// What one request may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Ranges.
    pub ranges: u32,
    /// Sectors of each.
    pub sectors: u32,
}

/// Discards free blocks of the host's file, which takes no time that counts.
pub(super) const DISCARD: Bounds = Bounds { ranges: 16, sectors: 128 << 11 };
/// Where the host's file system cannot make zeros, they are written: as much as a request may move.
pub(super) const WRITE_ZEROES: Bounds =
    Bounds { ranges: 1, sectors: (super::REQUEST_BYTES_MAX as u64 / SECTOR_BYTES) as u32 };

/// Sectors that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub sector: u64,
    pub sectors: u32,
    /// The sectors need not keep their blocks on the host.
    pub may_unmap: bool,
}

impl Range {
    fn from_bytes(bytes: [u8; RANGE_BYTES]) -> Result<Self, Refusal> {
        let (sector, rest) = bytes.split_at(8);
        let (sectors, flags) = rest.split_at(4);
        let flags = u32::from_le_bytes(flags.try_into().expect("4 bytes"));
        let unmap = blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        if flags & !unmap != 0 {
            return Err(Refusal::Unsupported);
        }
        Ok(Self {
            sector: u64::from_le_bytes(sector.try_into().expect("8 bytes")),
            sectors: u32::from_le_bytes(sectors.try_into().expect("4 bytes")),
            may_unmap: flags & unmap != 0,
        })
    }

    pub fn bytes(&self) -> u64 {
        u64::from(self.sectors) * SECTOR_BYTES
    }
}

/// Reads all ranges of a request, each inside a disk of so many sectors: a request is served as a whole or not at all.
pub(super) fn parse(
    data: &mut Segments<'_, Readable>,
    bounds: Bounds,
    disk_sectors: u64,
) -> Result<Vec<Range>, Refusal> {
    let count = data.len() / RANGE_BYTES;
    if count == 0 || !data.len().is_multiple_of(RANGE_BYTES) || count > bounds.ranges as usize {
        return Err(Refusal::Refused);
    }
    let mut ranges = Vec::with_capacity(count);
    for _ in 0..count {
        let mut bytes = [0; RANGE_BYTES];
        data.read(&mut bytes);
        let range = Range::from_bytes(bytes)?;
        let end = range.sector.checked_add(u64::from(range.sectors)).ok_or(Refusal::Refused)?;
        if range.sectors > bounds.sectors || end > disk_sectors {
            return Err(Refusal::Refused);
        }
        ranges.push(range);
    }
    Ok(ranges)
}
