//! Frames of a guest, as fresh as asked for.

use crate::guests::{GuestSeq, age_ms};
use crate::objects::{FramesObject, GuestObject};
use crate::state::charges::sources::sources;
use crate::state::{Balancer, StateError};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::{FrameReader, Totals};
use protocol::message::ToVmm;
use std::sync::Arc;
use std::time::Duration;

/// A `vmm` must have compared its table with the kernel within this.
const DEADLINE: Duration = Duration::from_secs(5);

impl Balancer {
    /// The frame table of a guest, compared with the kernel at most `age_ms_max` ago; as it is when that is `None`.
    ///
    /// # Errors
    /// When there is no such guest, or its `vmm` does not answer.
    pub async fn frames(&self, name: &str, age_ms_max: Option<u64>) -> Result<Arc<FrameReader>, StateError> {
        let missing = || StateError::NoGuest(name.to_owned());
        let (frames, mut answered) = self.view(|state, _| {
            let guest = state.guests.existing(name)?;
            Ok::<_, StateError>((Arc::clone(&guest.frames), guest.reconciled.subscribe()))
        })?;
        let fresh = |frames: &FrameReader| {
            age_ms_max.is_none_or(|most| frames.totals().reconciled_age_ms.is_some_and(|age| age <= most))
        };
        if fresh(&frames) {
            return Ok(frames);
        }
        let asked = self.kernel.now();
        let late =
            || StateError::Deadline { name: name.to_owned(), waited_ms: age_ms(asked, self.kernel.now()) };
        if !self.view(|state, _| Ok::<_, StateError>(state.guests.existing(name)?.send(ToVmm::Reconcile)))? {
            return Err(late());
        }
        match tokio::time::timeout(DEADLINE, answered.changed()).await {
            // A comparison that ended after the question. One that another client asked for just before counts as well.
            Ok(Ok(())) => Ok(frames),
            // The guest left meanwhile.
            Ok(Err(_)) => Err(missing()),
            Err(_) => Err(late()),
        }
    }
}

impl Balancer {
    /// Asks the helper of an attached guest to leave it. Returns the guest's number, and the id of the last event
    /// before that.
    ///
    /// # Errors
    /// When there is no such guest, it was not attached, or its helper takes no messages.
    pub fn ask_to_detach(&self, name: &str) -> Result<(GuestSeq, u64), StateError> {
        self.view(|state, _| {
            let guest = state.guests.existing(name)?;
            if !guest.about.machine.is_some_and(|machine| machine.attached) {
                return Err(StateError::NotAttached(name.to_owned()));
            }
            let last_event = *state.events.watch().borrow();
            if !guest.send(ToVmm::Detach) {
                return Err(StateError::Deaf(name.to_owned()));
            }
            Ok((guest.seq, last_event))
        })
    }

    /// True as long as this guest is registered.
    #[must_use]
    pub fn has_guest(&self, guest: GuestSeq) -> bool {
        self.view(|state, _| state.guests.get(guest).is_some())
    }
}

impl FramesObject {
    /// The table in figures; counted frame by frame as well if `audit`: O(frames), not for the daemon's own thread.
    #[must_use]
    pub fn new(guest: &GuestObject, frames: &FrameReader, blocks: bool, audit: bool) -> Self {
        let totals = frames.totals();
        let ballooned = guest.ram_bytes.saturating_sub(guest.balloon.actual_bytes) / FRAME_BYTES;
        let sources = sources(&totals, frames.is_residency_only().then_some(ballooned));
        let from_blocks = blocks.then(|| frames.totals_from_blocks());
        let from_entries = audit.then(|| frames.totals_from_entries());
        let fits = |counted: &Option<Totals>| counted.as_ref().is_none_or(|totals| totals.untiled == 0);
        let tiles = totals.untiled == 0 && !totals.torn && fits(&from_blocks) && fits(&from_entries);
        Self {
            guest: guest.name.clone(),
            tiles,
            totals,
            ram_unseen: guest.ram_unseen.clone(),
            sources,
            from_blocks,
            from_entries,
            private_by_owner: audit.then(|| frames.private_by_owner()),
        }
    }
}
