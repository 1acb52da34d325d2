//! Guest RAM and images of this process, watched by the kernel's totals and by the memory that this process released
//! itself.

use super::Watch;
use crate::memory::images::lost_frames;
use crate::memory::{Drift, Images, Mark, Pass, Ram};
use protocol::frames::FrameTable;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A total that moved by less is not worth a pass: the VMM's own allocations. The error that is published includes it.
const MOVED_FRAMES: u64 = 32;
/// After this time a total that moved is worth a pass, however little it moved.
const COMPARE_EVERY: Duration = Duration::from_secs(300);

/// Watches RAM and images of this process.
pub(super) struct OwnMemory {
    ram: Arc<Ram>,
    images: Arc<Images>,
    drift: Drift,
    /// The kernel's totals when the running pass began, and when that was.
    begun: Option<(Option<Mark>, Instant)>,
    /// The same for the last pass that ended.
    compared: Option<(Option<Mark>, Instant)>,
    /// Frames of images that were lost at the last check.
    lost_frames: u64,
}

impl OwnMemory {
    pub(super) fn open(ram: Arc<Ram>, images: Arc<Images>) -> io::Result<Self> {
        Ok(Self { ram, images, drift: Drift::open()?, begun: None, compared: None, lost_frames: 0 })
    }

    /// Publishes the table's errors. Returns the frames that were touched since the mark, and the pages of files that
    /// were mapped, which do not count without images.
    fn publish(&mut self, table: &FrameTable, mark: Option<Mark>) -> (Option<i64>, Option<i64>) {
        let since = mark.and_then(|mark| self.drift.since(&self.ram, mark).ok());
        let touched = since.map(|since| since.touched);
        self.drift.publish(table, touched);
        if self.images.is_empty() {
            return (touched, Some(0));
        }
        let mapped = since.map(|since| since.mapped);
        self.drift.publish_images(table, mapped);
        let lost_frames = lost_frames();
        if lost_frames > std::mem::replace(&mut self.lost_frames, lost_frames) {
            tracing::warn!(
                lost_frames,
                "The file of an image got shorter while it was mapped; the rest is zeros"
            );
        }
        table.set_lost_frames(lost_frames);
        (touched, mapped)
    }
}

impl Watch for OwnMemory {
    fn check(&mut self, table: &FrameTable) -> Option<Pass> {
        let Some((mark, at)) = self.compared else { return Some(Pass::Full) };
        let (touched, mapped) = self.publish(table, mark);
        let (Some(touched), Some(mapped)) = (touched, mapped) else { return Some(Pass::Full) };
        if touched.min(mapped) < -self.drift.inexact_frames().cast_signed() {
            // Memory is gone that this process did not release.
            return Some(Pass::Full);
        }
        let moved = touched.unsigned_abs().max(mapped.unsigned_abs());
        (moved > MOVED_FRAMES || moved > 0 && at.elapsed() >= COMPARE_EVERY).then_some(Pass::Touched)
    }

    fn begin(&mut self) {
        let at = Instant::now();
        self.begun = Some((self.drift.mark(&self.ram).ok(), at));
    }

    fn passed(&mut self, table: &FrameTable) {
        self.compared = self.begun;
        self.publish(table, self.compared.and_then(|(mark, _)| mark));
    }
}
