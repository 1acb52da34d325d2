//! Statistics of the guest's kernel (virtio 1.3, section 5.5.6.3): tags, values, and how old they are.

use std::time::{Duration, Instant};

/// le16 tag, le64 value, packed.
const STAT_BYTES: usize = 10;
/// Statistics that are decoded of one buffer. Linux sends each tag once.
pub(super) const STATS_MAX: usize = 64;
/// Bytes that are read of one buffer.
pub(super) const BUFFER_BYTES_MAX: usize = STATS_MAX * STAT_BYTES;

/// What the guest's kernel reports about its memory. Absent values were not sent: tags 10 to 15 came with Linux 6.12.
/// Counts are since the guest booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalloonStats {
    /// Tag 0: swapped in.
    pub swap_in_bytes: Option<u64>,
    /// Tag 1: swapped out.
    pub swap_out_bytes: Option<u64>,
    /// Tag 2: page faults that needed I/O.
    pub major_faults: Option<u64>,
    /// Tag 3: all page faults of Linux, major ones included.
    pub minor_faults: Option<u64>,
    /// Tag 4: memory used for nothing.
    pub free_memory_bytes: Option<u64>,
    /// Tag 5: memory that the kernel manages.
    pub total_memory_bytes: Option<u64>,
    /// Tag 6: memory that could be used without swapping.
    pub available_memory_bytes: Option<u64>,
    /// Tag 7: file pages, which could be reclaimed.
    pub disk_caches_bytes: Option<u64>,
    /// Tag 8: huge pages allocated from hugetlbfs.
    pub hugetlb_allocations: Option<u64>,
    /// Tag 9: huge pages that could not be allocated.
    pub hugetlb_failures: Option<u64>,
    /// Tag 10: processes killed for lack of memory.
    pub oom_kill: Option<u64>,
    /// Tag 11: allocations that had to reclaim memory themselves.
    pub alloc_stall: Option<u64>,
    /// Tag 12: pages scanned by background reclaim.
    pub async_scan: Option<u64>,
    /// Tag 13: pages scanned by allocations.
    pub direct_scan: Option<u64>,
    /// Tag 14: pages reclaimed in the background.
    pub async_reclaim: Option<u64>,
    /// Tag 15: pages reclaimed by allocations.
    pub direct_reclaim: Option<u64>,
}

impl BalloonStats {
    /// Decodes a buffer. A later value of a tag replaces an earlier one. Returns also how many tags are not known.
    pub fn decode(bytes: &[u8]) -> (Self, u64) {
        let mut stats = Self::default();
        let mut unknown = 0;
        let (entries, _cut_short) = bytes.as_chunks::<STAT_BYTES>();
        for entry in entries.iter().take(STATS_MAX) {
            let (tag, value) = entry.split_at(2);
            let tag = u16::from_le_bytes(tag.try_into().expect("2 bytes"));
            let value = u64::from_le_bytes(value.try_into().expect("8 bytes"));
            match stats.field(tag) {
                Some(field) => *field = Some(value),
                None => unknown += 1,
            }
        }
        (stats, unknown)
    }

    fn field(&mut self, tag: u16) -> Option<&mut Option<u64>> {
        Some(match tag {
            0 => &mut self.swap_in_bytes,
            1 => &mut self.swap_out_bytes,
            2 => &mut self.major_faults,
            3 => &mut self.minor_faults,
            4 => &mut self.free_memory_bytes,
            5 => &mut self.total_memory_bytes,
            6 => &mut self.available_memory_bytes,
            7 => &mut self.disk_caches_bytes,
            8 => &mut self.hugetlb_allocations,
            9 => &mut self.hugetlb_failures,
            10 => &mut self.oom_kill,
            11 => &mut self.alloc_stall,
            12 => &mut self.async_scan,
            13 => &mut self.direct_scan,
            14 => &mut self.async_reclaim,
            15 => &mut self.direct_reclaim,
            _ => return None,
        })
    }
}

/// Statistics and when they arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatsSample {
    /// What the guest said.
    pub stats: BalloonStats,
    /// When it arrived.
    pub at: Instant,
    /// 1 for the first sample of the device, and one more for each.
    pub sequence: u64,
}

impl StatsSample {
    /// How old the sample is.
    pub fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

#[cfg(test)]
#[path = "stats_test.rs"]
mod tests;
