//! What balloon and free page reporting do to guest RAM: release first, record second.
//!
//! The order matters to the reconciler: it never finds a frame that is recorded as ballooned and still held.

use super::{Pagemap, Ram};
use devices::virtio::balloon::{BalloonBackend, FrameRun, Outcome};
use protocol::frames::{FrameTable, RegionKind, State, Transition};
use std::io;
use std::sync::Arc;

/// Guest RAM and its frame table, as the balloon device uses them.
#[derive(Debug)]
pub struct RamBalloon {
    ram: Arc<Ram>,
    table: Arc<FrameTable>,
    pagemap: Pagemap,
}

impl RamBalloon {
    /// The backend of a guest's balloon.
    ///
    /// # Errors
    /// When the pagemap cannot be opened.
    pub fn new(ram: Arc<Ram>, table: Arc<FrameTable>) -> io::Result<Self> {
        Ok(Self { ram, table, pagemap: Pagemap::open()? })
    }

    fn follow(&self, runs: &[FrameRun]) {
        if let Err(error) = self.ram.follow_balloon(&self.table, runs) {
            tracing::warn!(%error, "Cannot advise the kernel about huge pages");
        }
    }

    fn give_back(&self, runs: &[FrameRun], transition: Transition) -> Outcome {
        let mut outcome = Outcome::default();
        for run in runs {
            match self.ram.release(&self.pagemap, run.first, run.count) {
                Ok(released) => outcome.freed_bytes += released.bytes,
                Err(error) => {
                    // The frames stay what they are: the table must not claim that memory was given back.
                    tracing::warn!(first = run.first, count = run.count, %error, "Cannot release guest memory");
                    continue;
                }
            }
            let set = self.table.apply(run.first, run.count, transition);
            outcome.changed_frames += set.changed;
            outcome.repeated_frames += set.repeated;
        }
        outcome
    }
}

impl BalloonBackend for RamBalloon {
    fn is_ram(&self, run: FrameRun) -> bool {
        self.ram.offset(run.first, run.count).is_some()
    }

    fn inflate(&mut self, runs: &[FrameRun]) -> Outcome {
        let outcome = self.give_back(runs, Transition::Inflate);
        self.follow(runs);
        outcome
    }

    fn deflate(&mut self, runs: &[FrameRun]) -> Outcome {
        let mut outcome = Outcome::default();
        for run in runs {
            // Only what is in the balloon can leave it. A frame that the guest used while it was ballooned is private
            // by now and stays so.
            let set = self.table.apply(run.first, run.count, Transition::Deflate);
            outcome.changed_frames += set.changed;
            outcome.repeated_frames += set.repeated + set.refused;
        }
        self.follow(runs);
        outcome
    }

    fn driver_reset(&mut self) -> Outcome {
        let whole: Vec<FrameRun> = self
            .ram
            .regions()
            .iter()
            .map(|region| FrameRun { first: region.first, count: region.count })
            .collect();
        self.deflate(&whole)
    }

    fn ballooned_frames(&self) -> u64 {
        self.table.total(RegionKind::Ram, State::Ballooned)
    }

    fn report(&mut self, runs: &[FrameRun]) -> Outcome {
        self.give_back(runs, Transition::Report)
    }
}
