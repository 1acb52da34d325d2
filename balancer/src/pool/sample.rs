//! Looking at files and frame tables, which may take a while: on a thread of its own, without the state's lock.

use super::backing::{PoolBacking, Stamp};
use super::image::Key;
use super::ledger::Seen;
use super::page_set::PageSet;
use accounting::Run;
use protocol::bytes::FRAME_BYTES;
use protocol::frames::{FrameReader, State};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is to be looked at.
#[derive(Debug, Default)]
pub struct Plan(pub(super) Vec<Question>);

/// One image: pages to let go first, and the tables of guests that map it.
#[derive(Debug)]
pub(super) struct Question {
    pub key: Key,
    pub backing: Arc<dyn PoolBacking>,
    pub evict: Vec<Run>,
    /// Guests by the order in which they registered, and the first frame of the image in each table.
    pub tables: Vec<(u64, Arc<FrameReader>, u64)>,
}

/// What was seen of one image.
#[derive(Debug)]
pub struct Answer {
    pub(super) key: Key,
    pub(super) backing: Arc<dyn PoolBacking>,
    pub(super) seen: Seen,
    /// What was let go first, or should have been.
    pub(super) evicted: Vec<Run>,
    pub(super) stamp: io::Result<Stamp>,
    /// How long each guest's table took.
    pub(super) took: Vec<(u64, Duration)>,
    /// When the look began.
    pub(super) at: Instant,
}

impl Plan {
    /// True if there is nothing to look at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks. Tables come before residency: a page that goes in between is nobody's then.
    #[must_use]
    pub fn carry_out(self) -> Vec<Answer> {
        self.0.into_iter().map(Question::answer).collect()
    }
}

impl Question {
    fn answer(self) -> Answer {
        let pages = self.backing.bytes() / FRAME_BYTES;
        let at = Instant::now();
        let (mut seen, mut took) = (Seen::default(), Vec::new());
        for (order, frames, first) in self.tables {
            let begun = Instant::now();
            seen.mapped.insert(order, shared(&frames, first, pages));
            took.push((order, begun.elapsed()));
        }
        for run in &self.evict {
            if let Err(error) = self.backing.evict(*run) {
                tracing::warn!(image = %self.key.digest, %error, "pages cannot be let go");
            }
        }
        // A managed image is in the books already: here it is only its file that is looked at.
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

/// Pages of an image that a guest maps by its own word.
fn shared(frames: &FrameReader, first: u64, pages: u64) -> PageSet {
    let mut set = PageSet::new(pages);
    frames.for_each_run_in(first, |run| {
        if run.frame.is_some_and(|frame| frame.state == State::Shared) {
            set.insert(Run { first: run.first - first, count: run.count });
        }
    });
    set
}
