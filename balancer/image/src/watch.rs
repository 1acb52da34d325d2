//! Progress of a build, and whether it was cancelled.

use super::error::BuildError;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most warnings that are kept; more are counted.
const WARNINGS_MAX: usize = 20;

/// What a build is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading names, modes and sizes.
    Reading,
    /// Writing contents.
    Writing,
    /// Computing the digest of the image, and checking its layout.
    Checking,
}

/// How far a build is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// Files done, and bytes done.
    pub done: (u64, u64),
    /// All files and bytes; zero while that is not known.
    pub all: (u64, u64),
}

/// Receives every step of a build. A cancelled build ends within one step: a file, or a MiB of one.
pub struct Watch<'a> {
    cancelled: &'a AtomicBool,
    report: &'a mut dyn FnMut(Progress),
    progress: Progress,
    warnings: Vec<String>,
    unsaid: usize,
}

impl<'a> Watch<'a> {
    /// One that ends the build once `cancelled` is set.
    pub fn new(cancelled: &'a AtomicBool, report: &'a mut dyn FnMut(Progress)) -> Self {
        let progress = Progress { phase: Phase::Reading, done: (0, 0), all: (0, 0) };
        Self { cancelled, report, progress, warnings: Vec::new(), unsaid: 0 }
    }

    /// What was left out of the images, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut all = self.warnings.clone();
        if self.unsaid > 0 {
            all.push(format!("{} more warnings of this kind", self.unsaid));
        }
        all
    }

    /// Notes what is left out of an image.
    pub(super) fn warn(&mut self, text: String) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(text);
        } else {
            self.unsaid += 1;
        }
    }

    /// Another phase begins.
    pub(super) fn begin(&mut self, phase: Phase, files: u64, bytes: u64) {
        self.progress = Progress { phase, done: (0, 0), all: (files, bytes) };
    }

    /// More files and bytes are done.
    pub(super) fn step(&mut self, files: u64, bytes: u64) -> Result<(), BuildError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(BuildError::Cancelled);
        }
        self.progress.done.0 += files;
        self.progress.done.1 += bytes;
        (self.report)(self.progress);
        Ok(())
    }
}
