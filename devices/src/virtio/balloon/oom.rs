//! Telling a deflation for lack of memory from those that were asked for.
//!
//! The protocol has no message for it: a driver with DEFLATE_ON_OOM sends frames through the deflate queue as ever.
//! What gives it away is that the host did not ask for it: the balloon is not above its target. Two things look the
//! same and are not:
//!
//! - Balloon compaction moves a page: one frame is inflated at its new place, then one deflated at its old one.
//! - A target that rises while the driver deflates towards a lower one: the chain under way still follows that.

/// What the driver may be following. Counts are in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OomWatch {
    /// The lowest target that a chain under way may have been meant for.
    floor: u32,
    /// The last thing that happened was the inflation of a single frame.
    single_inflated: bool,
}

impl OomWatch {
    /// The target went from `old` to `new` while `held` frames were in the balloon.
    pub fn target_changed(&mut self, old: u32, new: u32, held: u64) {
        let deflating = held > u64::from(old);
        self.floor = if deflating { self.floor.min(new) } else { new };
    }

    /// `frames` went into the balloon.
    pub fn inflated(&mut self, frames: u64, target: u32) {
        self.single_inflated = frames == 1;
        if !self.single_inflated {
            // The driver has seen the target.
            self.floor = target;
        }
    }

    /// `frames` came out of the balloon, which holds `held` now. Returns how many of them the host did not ask for.
    pub fn deflated(&mut self, frames: u64, target: u32, held: u64) -> u64 {
        let moved = frames == 1 && std::mem::take(&mut self.single_inflated);
        self.single_inflated = false;
        let missing = u64::from(self.floor).saturating_sub(held);
        if moved {
            return 0;
        }
        self.floor = target;
        missing.min(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deflation_below_the_target_is_for_lack_of_memory() {
        let mut watch = OomWatch::default();
        watch.target_changed(0, 1000, 0);
        watch.inflated(256, 1000);
        assert_eq!(watch.deflated(200, 1000, 56), 200);
        watch.inflated(1000, 1000);
        assert_eq!(watch.deflated(256, 1000, 800), 200, "only what is missing at the target counts");
    }

    #[test]
    fn a_deflation_that_was_asked_for_is_not() {
        let mut watch = OomWatch::default();
        watch.target_changed(0, 1000, 0);
        watch.inflated(1000, 1000);
        watch.target_changed(1000, 100, 1000);
        assert_eq!(watch.deflated(256, 100, 744), 0);
        // The target rises while the driver is on its way down: one more chain may come.
        watch.target_changed(100, 900, 744);
        assert_eq!(watch.deflated(256, 900, 488), 0);
        assert_eq!(watch.deflated(256, 900, 232), 256);
    }

    #[test]
    fn a_page_that_moves_is_not() {
        let mut watch = OomWatch::default();
        watch.target_changed(0, 1000, 0);
        watch.inflated(256, 1000);
        watch.inflated(1, 1000);
        assert_eq!(watch.deflated(1, 1000, 256), 0);
        assert_eq!(watch.deflated(1, 1000, 255), 1, "once");
    }
}
