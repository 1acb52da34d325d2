//! One reading of what a guest takes: its frame table and the kernel's figures, and how far these two can be apart.
//!
//! The kernel says in one system call what it holds for the process by kind: guest RAM is anonymous memory, pages of
//! images are files or shared memory. Of the latter the table says which are pages of images. It is read first and
//! lags behind the kernel: a page that the guest mapped is in the kernel's figure at once, and in the table after the
//! next scan. So
//!
//! ```text
//!   files and shared memory of the process, by the kernel
//!   |  the process's own  |         doubt         |  pages of images, by the table  |
//!                         |<--- at most: not scanned yet, by the table's bound ---->|
//!                                + growth of the kernel's figure since that bound
//! ```
//!
//! What is in doubt is not charged as the process's own: it is an error bound of what is charged. It is never more
//! than the images have.

use super::figures::{KernelSample, table_bytes};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::{FrameReader, Region, RegionKind, Totals};
use protocol::image::MappedImage;
use std::time::{Duration, Instant};

/// What a frame table says, all of one moment.
#[derive(Debug, Clone, Default)]
pub struct TableSample {
    /// Its totals; `shared` are pages of the pool's images alone.
    pub totals: Totals,
    /// Pages of images that the pool does not know (`--root PATH`), frames.
    pub other_shared: u64,
    /// Frames of the pool's images that the table covers.
    pub pool_frames: u64,
    /// Frames of images that the pool does not know.
    pub other_frames: u64,
}

impl TableSample {
    /// Of a guest that maps these images of the pool. Of an image that the pool does not know it
    /// is not known which other processes map it.
    #[must_use]
    pub fn take(frames: &FrameReader, images: &[MappedImage]) -> Self {
        let (totals, regions) = frames.totals_and_regions();
        let mut sample = Self { totals, ..Self::default() };
        sample.totals.shared = 0;
        let of_images = regions.iter().filter(|(region, _)| region.kind == RegionKind::Image);
        let of_pool = |region: &Region| images.iter().any(|image| image.first == region.first);
        for (region, totals) in of_images {
            let (shared, frames) = match of_pool(region) {
                true => (&mut sample.totals.shared, &mut sample.pool_frames),
                false => (&mut sample.other_shared, &mut sample.other_frames),
            };
            *shared = shared.saturating_add(totals.shared);
            *frames = frames.saturating_add(region.count);
        }
        sample
    }

    /// Host memory that the guest has for itself by the table, bytes.
    #[must_use]
    pub fn private_bytes(&self) -> u64 {
        table_bytes(&self.totals)
    }
}

/// The table first, then the kernel.
#[derive(Debug, Clone)]
pub struct Reading {
    /// By the table.
    pub table: TableSample,
    /// By the kernel.
    pub kernel: KernelSample,
    /// When the table was read.
    pub at: Instant,
    /// Time from before the first of the two until after the second: what the guest did in it may be in one of them
    /// alone.
    pub span: Duration,
}

impl Reading {
    /// Reads both. `None` when a process is gone.
    pub fn of(
        table: impl FnOnce() -> TableSample,
        kernel: impl FnOnce() -> Option<KernelSample>,
        clock: impl Fn() -> Instant,
    ) -> Option<Self> {
        let at = clock();
        let (table, kernel) = (table(), kernel()?);
        Some(Self { table, kernel, at, span: clock().saturating_duration_since(at) })
    }

    /// What of the process are pages of images, given the reading before this one.
    #[must_use]
    pub fn images(&self, before: Option<&Self>) -> ImagePages {
        let bytes = |frames: u64| frames.saturating_mul(FRAME_BYTES);
        let file_bytes = self.kernel.file_bytes();
        let totals = &self.table.totals;
        let doubt_bytes = bytes(totals.shared_error_frames_max).saturating_add(self.growth_bytes(before));
        let all = Part {
            known_bytes: bytes(totals.shared.saturating_add(self.table.other_shared)).min(file_bytes),
            bytes_max: bytes(self.table.pool_frames.saturating_add(self.table.other_frames)).min(file_bytes),
        };
        let pool = Part {
            known_bytes: bytes(totals.shared).min(file_bytes),
            bytes_max: bytes(self.table.pool_frames).min(file_bytes),
        };
        ImagePages { all: all.within(doubt_bytes), pool: pool.within(doubt_bytes) }
    }

    /// By how much files and shared memory of the process may have grown since the table's bound was published, bytes.
    fn growth_bytes(&self, before: Option<&Self>) -> u64 {
        // Ages are whole milliseconds, rounded down.
        let age =
            self.table.totals.shared_checked_age_ms.map(|age| Duration::from_millis(age.saturating_add(1)));
        let checked_at = age.and_then(|age| self.at.checked_sub(age));
        match (before, checked_at) {
            (Some(before), Some(checked_at)) if checked_at >= before.kernel.at => {
                self.kernel.file_bytes().saturating_sub(before.kernel.file_bytes())
            }
            _ => u64::MAX,
        }
    }
}

/// Pages of images that a process has mapped, as far as it is known. Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// By the table.
    pub known_bytes: u64,
    /// That, and what the table may not know yet.
    pub bytes_max: u64,
}

impl Part {
    fn within(self, doubt_bytes: u64) -> Self {
        let bytes_max = self.known_bytes.saturating_add(doubt_bytes).min(self.bytes_max);
        Self { known_bytes: self.known_bytes.min(bytes_max), bytes_max }
    }

    /// What may be pages of images or the process's own, bytes.
    #[must_use]
    pub fn doubt_bytes(&self) -> u64 {
        self.bytes_max - self.known_bytes
    }
}

/// The pages of images among what the kernel holds for a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImagePages {
    /// Of all images.
    pub all: Part,
    /// Of the pool's.
    pub pool: Part,
}

impl ImagePages {
    /// Of images that the pool does not know, by the table, bytes.
    #[must_use]
    pub fn other_bytes(&self) -> u64 {
        self.all.known_bytes.saturating_sub(self.pool.known_bytes)
    }
}

#[cfg(test)]
#[path = "reading_test.rs"]
mod tests;
