//! The block device (virtio 1.3, section 5.2) over a raw file or a host block device.
//!
//! Served are reads, writes, flushes, discards, zeros and the id. Data moves between the file and guest RAM by one
//! vectored system call, without a copy in between. What a hostile guest can choose is bounded: a request moves at most
//! [`REQUEST_BYTES_MAX`], all of it inside the file as it was when the device was made and inside guest RAM, or nothing
//! at all.

mod disk;
mod ranges;
mod request;

use self::disk::Disk;
use self::ranges::Range;
use self::request::{Command, Header};
use super::buffers::{Buffers, ChainError};
use super::queue::{QueueOutcome, drain};
use super::{VirtioDevice, read_config_bytes};
use crate::DeviceMemory;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use virtio_bindings::virtio_blk as blk;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::Queue;

/// Bytes of a sector, the unit of capacity and positions whatever the block size.
pub const SECTOR_BYTES: u64 = 512;
/// Segments of one request (`seg_max`).
pub const SEGMENTS_MAX: u32 = 64;
/// Bytes of one segment (`size_max`).
pub const SEGMENT_BYTES_MAX: u32 = 64 * 1024;
/// Bytes that one request may move.
pub const REQUEST_BYTES_MAX: usize = (SEGMENTS_MAX * SEGMENT_BYTES_MAX) as usize;

const QUEUE_SIZES: [u16; 1] = [256];
/// Discards free whole blocks of the host's file system, which are mostly of 4 KiB.
const DISCARD_SECTORS_ALIGNED: u32 = 8;
/// Up to 32 MiB in one event, then the VMM does its other work.
const BATCH_CHAINS: usize = 8;
const ID_BYTES: usize = blk::VIRTIO_BLK_ID_BYTES as usize;
/// Configuration up to and including `write_zeroes_may_unmap` (section 5.2.4).
const CONFIG_BYTES: usize = 57;

/// What the guest asked for. Counts since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounters {
    /// Requests served with success.
    pub served: u64,
    /// Bytes read from the file.
    pub read_bytes: u64,
    /// Bytes written to the file.
    pub written_bytes: u64,
    /// Bytes that were discarded or filled with zeros.
    pub cleared_bytes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Requests of a type that is not offered.
    pub unsupported: u64,
    /// Requests beyond the end, of part of a sector, too long, or writing to a read-only disk.
    pub refused: u64,
    /// Requests that the host failed to serve.
    pub failed: u64,
    /// Chains that are malformed, point outside guest memory, write into an image, or have no room for a status.
    pub bad_chains: u64,
}

/// A disk.
#[derive(Debug)]
pub struct Block {
    disk: Disk,
    id: [u8; ID_BYTES],
    /// The driver did not accept FLUSH, so it may take every finished write for stable (section 5.2.6.2).
    write_through: bool,
    /// What the driver accepted.
    features: u64,
    counters: BlockCounters,
    moved_bytes: Arc<AtomicU64>,
}

/// Why a request was not served.
enum Refusal {
    Unsupported,
    Refused,
    Failed(io::Error),
}

impl Block {
    /// A disk of the bytes of `file`, which is a regular file or a block device. `id` is what the guest reads as the
    /// serial number; only its first 20 bytes count.
    ///
    /// # Errors
    /// When the length of the file is unknown or not a multiple of 512 bytes.
    pub fn new(file: File, read_only: bool, id: &str) -> io::Result<Self> {
        let mut id_bytes = [0; ID_BYTES];
        let count = id.len().min(ID_BYTES);
        id_bytes[..count].copy_from_slice(&id.as_bytes()[..count]);
        Ok(Self {
            disk: Disk::new(file, read_only)?,
            id: id_bytes,
            write_through: true,
            features: 0,
            counters: BlockCounters::default(),
            moved_bytes: Arc::default(),
        })
    }

    /// Length of the disk in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.disk.sectors()
    }

    /// What the guest asked for.
    pub fn counters(&self) -> &BlockCounters {
        &self.counters
    }

    /// Bytes read from the file and written to it, to be read without the device's lock: it grows after the file's page
    /// cache did.
    pub fn moved_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.moved_bytes)
    }

    /// Serves a chain and returns the bytes written into its buffers.
    fn serve(&mut self, mem: &DeviceMemory, chain: super::queue::Chain<'_>) -> u32 {
        let again = chain.clone();
        let (mut buffers, header, mut status) = match Buffers::of(mem, chain).and_then(request::parse) {
            Ok(parts) => parts,
            Err(error) => {
                self.counters.bad_chains += 1;
                tracing::debug!(%error, "Block request is malformed");
                // A driver that sees no error takes the last status in that place for the status of this request.
                let place = matches!(error, ChainError::ReadOnly { .. } | ChainError::OutsideRam { .. });
                let status = request::status_of(mem, again).filter(|_| place);
                return status.map_or(0, |mut status| status.write(&[blk::VIRTIO_BLK_S_IOERR as u8]) as u32);
            }
        };
        let (code, written) = match self.execute(header, &mut buffers) {
            Ok(written) => {
                self.counters.served += 1;
                (blk::VIRTIO_BLK_S_OK, written)
            }
            Err(Refusal::Unsupported) => {
                self.counters.unsupported += 1;
                (blk::VIRTIO_BLK_S_UNSUPP, 0)
            }
            Err(Refusal::Refused) => {
                self.counters.refused += 1;
                (blk::VIRTIO_BLK_S_IOERR, 0)
            }
            Err(Refusal::Failed(error)) => {
                self.counters.failed += 1;
                // The guest decides how often this happens: the log gets the 1st, 2nd, 4th, 8th, ...
                if self.counters.failed.is_power_of_two() {
                    tracing::warn!(%error, failed = self.counters.failed, "Block request failed on the host");
                }
                (blk::VIRTIO_BLK_S_IOERR, 0)
            }
        };
        written + status.write(&[code as u8]) as u32
    }

    fn execute(&mut self, header: Header, buffers: &mut Buffers<'_>) -> Result<u32, Refusal> {
        match header.command {
            Command::Read => {
                let data = &buffers.writable;
                let position = self.disk.position(header.sector, data.len()).ok_or(Refusal::Refused)?;
                self.disk.read(position, data).map_err(Refusal::Failed)?;
                self.counters.read_bytes += data.len() as u64;
                self.moved_bytes.fetch_add(data.len() as u64, Relaxed);
                Ok(data.len() as u32)
            }
            Command::Write => {
                let data = &buffers.readable;
                if self.disk.read_only() {
                    return Err(Refusal::Refused);
                }
                let position = self.disk.position(header.sector, data.len()).ok_or(Refusal::Refused)?;
                self.disk.write(position, data).map_err(Refusal::Failed)?;
                self.counters.written_bytes += data.len() as u64;
                self.moved_bytes.fetch_add(data.len() as u64, Relaxed);
                if self.write_through {
                    self.disk.flush().map_err(Refusal::Failed)?;
                }
                Ok(0)
            }
            Command::Flush if !self.disk.read_only() => {
                self.disk.flush().map_err(Refusal::Failed)?;
                self.counters.flushes += 1;
                Ok(0)
            }
            Command::Discard if self.accepted(blk::VIRTIO_BLK_F_DISCARD) => {
                let ranges = self.ranges(buffers, ranges::DISCARD)?;
                // The flag is for zeros alone.
                if ranges.iter().any(|range| range.may_unmap) {
                    return Err(Refusal::Unsupported);
                }
                self.clear(&ranges, Disk::discard)
            }
            Command::WriteZeroes if self.accepted(blk::VIRTIO_BLK_F_WRITE_ZEROES) => {
                let ranges = self.ranges(buffers, ranges::WRITE_ZEROES)?;
                self.clear(&ranges, Disk::write_zeroes)
            }
            Command::Id => Ok(buffers.writable.write(&self.id) as u32),
            Command::Flush | Command::Discard | Command::WriteZeroes | Command::Other => {
                Err(Refusal::Unsupported)
            }
        }
    }

    /// True if the driver accepted a feature, which only a disk that can be written has.
    fn accepted(&self, feature: u32) -> bool {
        self.features & self.features() & 1 << feature != 0
    }

    fn ranges(&self, buffers: &mut Buffers<'_>, bounds: ranges::Bounds) -> Result<Vec<Range>, Refusal> {
        ranges::parse(&mut buffers.readable, bounds, self.disk.sectors())
    }

    /// Clears ranges that were checked. The page cache of the file changes, as with a write.
    fn clear(&mut self, ranges: &[Range], way: fn(&Disk, Range) -> io::Result<()>) -> Result<u32, Refusal> {
        for range in ranges {
            way(&self.disk, *range).map_err(Refusal::Failed)?;
            self.counters.cleared_bytes += range.bytes();
            self.moved_bytes.fetch_add(range.bytes(), Relaxed);
        }
        if self.write_through {
            self.disk.flush().map_err(Refusal::Failed)?;
        }
        Ok(0)
    }
}

impl VirtioDevice for Block {
    fn id(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn features(&self) -> u64 {
        let all = 1 << blk::VIRTIO_BLK_F_SIZE_MAX
            | 1 << blk::VIRTIO_BLK_F_SEG_MAX
            | 1 << blk::VIRTIO_BLK_F_BLK_SIZE;
        let written = 1 << blk::VIRTIO_BLK_F_FLUSH
            | 1 << blk::VIRTIO_BLK_F_DISCARD
            | 1 << blk::VIRTIO_BLK_F_WRITE_ZEROES;
        all | if self.disk.read_only() { 1 << blk::VIRTIO_BLK_F_RO } else { written }
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_blk_config: capacity, size_max, seg_max, geometry (4 bytes, not offered), blk_size, topology
        // (8 bytes), writeback and num_queues (4 bytes, not offered), max_discard_sectors, max_discard_seg,
        // discard_sector_alignment, max_write_zeroes_sectors, max_write_zeroes_seg, write_zeroes_may_unmap.
        let mut config = [0; CONFIG_BYTES];
        config[..8].copy_from_slice(&self.disk.sectors().to_le_bytes());
        config[8..12].copy_from_slice(&SEGMENT_BYTES_MAX.to_le_bytes());
        config[12..16].copy_from_slice(&SEGMENTS_MAX.to_le_bytes());
        config[20..24].copy_from_slice(&(SECTOR_BYTES as u32).to_le_bytes());
        config[36..40].copy_from_slice(&ranges::DISCARD.sectors.to_le_bytes());
        config[40..44].copy_from_slice(&ranges::DISCARD.ranges.to_le_bytes());
        config[44..48].copy_from_slice(&DISCARD_SECTORS_ALIGNED.to_le_bytes());
        config[48..52].copy_from_slice(&ranges::WRITE_ZEROES.sectors.to_le_bytes());
        config[52..56].copy_from_slice(&ranges::WRITE_ZEROES.ranges.to_le_bytes());
        config[56] = 1;
        read_config_bytes(&config, offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) -> bool {
        false
    }

    fn activate(&mut self, features: u64) {
        self.features = features;
        self.write_through = features & 1 << blk::VIRTIO_BLK_F_FLUSH == 0;
    }

    fn process_queue(&mut self, mem: &DeviceMemory, _index: usize, queue: &mut Queue) -> QueueOutcome {
        drain(mem, queue, BATCH_CHAINS, |chain| self.serve(mem, chain))
    }

    fn reset(&mut self) {
        self.features = 0;
        self.write_through = true;
    }
}

#[cfg(test)]
#[path = "block_test.rs"]
mod tests;
