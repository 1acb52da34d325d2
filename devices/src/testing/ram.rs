//! A balloon backend that keeps a state per frame and nothing else.

use crate::virtio::balloon::{BalloonBackend, FrameRun, Outcome};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// State of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameState {
    /// The guest may use it.
    #[default]
    Used,
    /// It is in the balloon.
    Ballooned,
    /// It was reported as free.
    Reported,
}

#[derive(Debug, Default)]
struct Frames {
    states: Vec<FrameState>,
    calls: Vec<Vec<FrameRun>>,
}

/// Frames 0 to `n`, all of them RAM. Clones share their frames, so a test can look at what the device did.
#[derive(Clone, Debug, Default)]
pub struct FakeRam(Arc<Mutex<Frames>>);

impl FakeRam {
    /// RAM of `count` frames.
    pub fn new(count: usize) -> Self {
        let frames = Frames { states: vec![FrameState::Used; count], calls: Vec::new() };
        Self(Arc::new(Mutex::new(frames)))
    }

    /// The state of a frame.
    pub fn state(&self, frame: u64) -> FrameState {
        self.frames().states[frame as usize]
    }

    /// Frames in a state.
    pub fn count(&self, state: FrameState) -> u64 {
        self.frames().states.iter().filter(|&&other| other == state).count() as u64
    }

    /// The runs of every call that changed frames, in order.
    pub fn calls(&self) -> Vec<Vec<FrameRun>> {
        self.frames().calls.clone()
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, runs: &[FrameRun], to: FrameState, may_change: impl Fn(FrameState) -> bool) -> Outcome {
        let mut frames = self.frames();
        for pair in runs.windows(2) {
            assert!(pair[0].first + pair[0].count <= pair[1].first, "runs are sorted and disjoint: {pair:?}");
        }
        frames.calls.push(runs.to_vec());
        let mut outcome = Outcome::default();
        for frame in runs.iter().flat_map(|run| run.first..run.first + run.count) {
            let state = &mut frames.states[frame as usize];
            if *state == to || !may_change(*state) {
                outcome.repeated_frames += 1;
                continue;
            }
            if *state == FrameState::Used {
                outcome.freed_bytes += 4096;
            }
            *state = to;
            outcome.changed_frames += 1;
        }
        outcome
    }
}

impl BalloonBackend for FakeRam {
    fn is_ram(&self, run: FrameRun) -> bool {
        let count = self.frames().states.len() as u64;
        run.first.checked_add(run.count).is_some_and(|end| end <= count)
    }

    fn inflate(&mut self, runs: &[FrameRun]) -> Outcome {
        self.set(runs, FrameState::Ballooned, |_| true)
    }

    fn deflate(&mut self, runs: &[FrameRun]) -> Outcome {
        let outcome = self.set(runs, FrameState::Used, |from| from == FrameState::Ballooned);
        Outcome { freed_bytes: 0, ..outcome }
    }

    fn report(&mut self, runs: &[FrameRun]) -> Outcome {
        self.set(runs, FrameState::Reported, |from| from == FrameState::Used)
    }

    fn ballooned_frames(&self) -> u64 {
        self.frames().states.iter().filter(|state| **state == FrameState::Ballooned).count() as u64
    }

    fn driver_reset(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        for state in self.frames().states.iter_mut().filter(|state| **state == FrameState::Ballooned) {
            *state = FrameState::Used;
            outcome.changed_frames += 1;
        }
        outcome
    }
}
