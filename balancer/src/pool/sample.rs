//! Sampling files and frame tables, which may take a while: on a thread of its own, without the state's lock.

use super::backing::{PoolBacking, Stamp};
use super::image::Key;
use super::ledger::Seen;
use super::numbers::GuestSeq;
use super::page_set::PageSet;
use accounting::Run;
use protocol::bytes::FRAME_BYTES;
use protocol::frames::{FrameReader, State};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The images to be sampled.
#[derive(Debug, Default)]
pub struct Sampling(pub(super) Vec<Question>);

/// One image: pages to evict first, and the tables of guests that map it.
#[derive(Debug)]
pub(super) struct Question {
    pub key: Key,
    pub backing: Arc<dyn PoolBacking>,
    pub evict: Vec<Run>,
    /// Guests with their tables, and the first frame of the image in each table.
    pub tables: Vec<(GuestSeq, Arc<FrameReader>, u64)>,
}

/// The sample of one image.
#[derive(Debug)]
pub struct Answer {
    pub(super) key: Key,
    pub(super) backing: Arc<dyn PoolBacking>,
    pub(super) seen: Seen,
    /// Pages that were evicted first, or should have been.
    pub(super) evicted: Vec<Run>,
    pub(super) stamp: io::Result<Stamp>,
    /// How long each guest's table took.
    pub(super) took: Vec<(GuestSeq, Duration)>,
    /// When the sample began.
    pub(super) at: Instant,
}

impl Sampling {
    /// True if there is nothing to sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the samples. Tables come before residency: a page that is freed in between is charged to no guest then.
    #[must_use]
    pub fn run(self) -> Vec<Answer> {
        self.0.into_iter().map(Question::answer).collect()
    }
}

impl Question {
    fn answer(self) -> Answer {
        let pages = self.backing.bytes() / FRAME_BYTES;
        let at = Instant::now();
        let (mut seen, mut took) = (Seen::default(), Vec::new());
        for (seq, frames, first) in self.tables {
            let begun = Instant::now();
            seen.mapped.insert(seq, shared(&frames, first, pages));
            took.push((seq, begun.elapsed()));
        }
        for run in &self.evict {
            if let Err(error) = self.backing.evict(*run) {
                tracing::warn!(image = %self.key.digest, %error, "pages cannot be evicted");
            }
        }
        // The granules of a managed image are known already: only its file is checked here.
        let sampled = self.backing.as_managed().is_none();
        seen.resident = sampled.then(|| self.backing.resident()).and_then(|resident| {
            resident
                .inspect_err(
                    |error| tracing::warn!(image = %self.key.digest, %error, "residency is not known"),
                )
                .ok()
        });
        let (stamp, evicted) = (self.backing.stamp(), self.evict);
        Answer { stamp, key: self.key, backing: self.backing, seen, evicted, took, at }
    }
}

/// Pages of an image that a guest maps according to its table.
fn shared(frames: &FrameReader, first: u64, pages: u64) -> PageSet {
    let mut set = PageSet::new(pages);
    frames.for_each_run_in(first, |run| {
        if run.frame.is_some_and(|frame| frame.state == State::Shared) {
            set.insert(Run { first: run.first - first, count: run.count });
        }
    });
    set
}
