//! What happened in the balloon, for the VMM to fetch.

use std::collections::VecDeque;

/// Events that wait at most. Beyond that the oldest are dropped and counted.
pub const EVENTS_MAX: usize = 256;

/// Something the VMM may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalloonEvent {
    /// A driver is ready.
    DriverReady {
        /// Features it accepted, those of the transport included.
        features: u64,
    },
    /// The driver wrote another `actual`.
    ActualChanged {
        /// Frames that it claims to hold.
        frames: u32,
    },
    /// There is a new statistics sample.
    StatsUpdated,
    /// The driver took frames although the balloon is not above its target: it was out of memory.
    OomDeflated {
        /// Frames taken, as far as they are missing at the target.
        frames: u64,
    },
    /// The driver was reset.
    DriverReset,
}

/// A bounded queue of events in which repetitions are merged.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<BalloonEvent>);

impl Events {
    /// Adds an event; false when the oldest one was dropped for it.
    pub fn push(&mut self, event: BalloonEvent) -> bool {
        use BalloonEvent::{ActualChanged, OomDeflated, StatsUpdated};
        match (self.0.back_mut(), event) {
            (Some(ActualChanged { frames: last }), ActualChanged { frames }) => *last = frames,
            (Some(OomDeflated { frames: sum }), OomDeflated { frames }) => *sum = sum.saturating_add(frames),
            (Some(StatsUpdated), StatsUpdated) => {}
            _ => {
                let full = self.0.len() == EVENTS_MAX;
                if full {
                    self.0.pop_front();
                }
                self.0.push_back(event);
                return !full;
            }
        }
        true
    }

    pub fn take(&mut self) -> Vec<BalloonEvent> {
        self.0.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_merge_and_the_oldest_are_dropped() {
        let mut events = Events::default();
        for frames in 0..1000 {
            assert!(events.push(BalloonEvent::ActualChanged { frames }));
        }
        assert!(events.push(BalloonEvent::OomDeflated { frames: 3 }));
        assert!(events.push(BalloonEvent::OomDeflated { frames: 4 }));
        let expected = [BalloonEvent::ActualChanged { frames: 999 }, BalloonEvent::OomDeflated { frames: 7 }];
        assert_eq!(events.take(), expected);
        assert_eq!(events.take(), []);

        for turn in 0..EVENTS_MAX as u64 {
            assert!(events.push(BalloonEvent::DriverReady { features: turn }));
        }
        assert!(!events.push(BalloonEvent::DriverReset));
        let taken = events.take();
        assert_eq!(taken.len(), EVENTS_MAX);
        assert_eq!(taken[0], BalloonEvent::DriverReady { features: 1 });
    }
}
