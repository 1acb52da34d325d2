//! How far the table may have drifted from the truth, in O(1).
//!
//! Only two things change how much guest RAM the kernel holds: the guest touches memory, and the VMM releases it. So
//!
//! ```text
//!   touched since a mark = growth of the kernel's total since + released by the VMM since
//! ```
//!
//! and no more frames than that can have changed behind the table's back, whatever became of them later. A mark is set
//! where a comparison begins, so that what is touched while it runs is included. The total is the whole process's: what
//! the VMM itself allocates makes the bound larger, what it frees at most [`KernelTotal::inexact_frames`] smaller.
//! Under memory pressure the kernel (6.12) may also split huge pages of mostly zeros and drop those: as many touches
//! are hidden then until the next pass, though not from the total itself. Pages of images are watched in the same way:
//! the process's total of file pages grows by what the guest maps.
//!
//! A total that cannot be read leaves the bound of a scan: all frames that are not private yet.

use super::{KernelTotal, Ram};
use protocol::frames::{ErrorSource, FrameTable, RegionKind, State};
use std::io;
use std::sync::atomic::Ordering::Acquire;

/// A moment in the kernel's books.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    kernel: u64,
    released: u64,
    file: u64,
}

/// What changed since a mark, frames.
#[derive(Debug, Clone, Copy)]
pub struct Since {
    /// Frames that were touched. Less than nothing if memory went away that this process did not release.
    pub touched: i64,
    /// Pages of files that were mapped. Less than nothing if the kernel took some away, as it does when memory is
    /// short.
    pub mapped: i64,
}

/// Watches the kernel's total.
#[derive(Debug)]
pub struct Drift(KernelTotal);

impl Drift {
    /// Starts watching.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn open() -> io::Result<Self> {
        Ok(Self(KernelTotal::open()?))
    }

    /// A mark of now.
    ///
    /// # Errors
    /// When the kernel's total cannot be read.
    pub fn mark(&self, ram: &Ram) -> io::Result<Mark> {
        // What is being released now is not counted, and then it is released since: too much touched, never too little.
        let released = ram.releases.ended.load(Acquire);
        let kernel = self.0.sample()?;
        Ok(Mark { kernel: kernel.all_anonymous(), released, file: kernel.file })
    }

    /// What changed since a mark, as differences of totals of one moment.
    ///
    /// # Errors
    /// When the kernel's total cannot be read.
    pub fn since(&self, ram: &Ram, mark: Mark) -> io::Result<Since> {
        let kernel = self.0.sample()?;
        // What is being released now is counted as released, although the total may not show it yet.
        let released = ram.releases.begun.load(Acquire);
        let before = mark.kernel.wrapping_add(mark.released);
        Ok(Since {
            touched: kernel.all_anonymous().wrapping_add(released).wrapping_sub(before).cast_signed(),
            mapped: kernel.file.wrapping_sub(mark.file).cast_signed(),
        })
    }

    /// How much of a difference says nothing, frames.
    #[must_use]
    pub fn inexact_frames(&self) -> u64 {
        self.0.inexact_frames()
    }

    /// Publishes the table's error: `touched` since the last comparison began, `None` if that is not known.
    pub fn publish(&self, table: &FrameTable, touched: Option<i64>) {
        match touched {
            Some(touched) => {
                let touched = u64::try_from(touched).unwrap_or(0);
                table.checked(touched + self.inexact_frames(), ErrorSource::KernelTotal);
            }
            // Without a total: whatever a scan could still find.
            None => {
                let hidden = [State::Untouched, State::Ballooned, State::Reported]
                    .map(|state| table.total(RegionKind::Ram, state));
                table.checked(hidden.iter().sum(), ErrorSource::Scan);
            }
        }
    }

    /// Publishes the error of what is recorded of images: `mapped` since the last comparison began, `None` if that is
    /// not known.
    pub fn publish_images(&self, table: &FrameTable, mapped: Option<i64>) {
        let error = match mapped {
            Some(mapped) => u64::try_from(mapped).unwrap_or(0) + self.inexact_frames(),
            None => u64::MAX,
        };
        table.checked_images(error);
    }
}
