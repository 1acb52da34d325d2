//! What other tasks wait for: events, room for waiters, another interval, granules.

use super::Balancer;
use crate::objects::Event;
use crate::pool::Library;
use protocol::run_dir::RunDir;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::futures::Notified;
use tokio::sync::watch;

impl Balancer {
    /// Where this balancer lives, for helpers that register with it.
    pub fn lives_in(&self, run_dir: RunDir) {
        let _ = self.run_dir.set(run_dir);
    }

    /// Where this balancer lives, once that is known.
    #[must_use]
    pub fn run_dir(&self) -> Option<&RunDir> {
        self.run_dir.get()
    }

    /// Its images.
    #[must_use]
    pub fn library(&self) -> Arc<Library> {
        Arc::clone(&self.library)
    }

    /// Ends when granules came or went after this call.
    pub fn granules_changed(&self) -> Notified<'_> {
        self.granules_changed.notified()
    }

    /// Events after the one with this id: see [`Events::since`](crate::events::Events::since).
    #[must_use]
    pub fn events_since(&self, id: u64) -> Vec<Event> {
        self.events_after(id, usize::MAX)
    }

    /// The first events after the one with this id, at most `count_max` of them.
    #[must_use]
    pub fn events_after(&self, id: u64, count_max: usize) -> Vec<Event> {
        self.view(|state, _| state.events.since(id, count_max))
    }

    /// The balancer ends: the next one's events follow the last one's number.
    pub fn ends(&self) {
        let state = &mut *self.lock();
        let last = state.events.last();
        state.reserve_events(last);
    }

    /// The id of the last event, to wait for the next.
    #[must_use]
    pub fn watch_events(&self) -> watch::Receiver<u64> {
        self.view(|state, _| state.events.watch())
    }

    /// The time between two ticks, whenever it changes.
    #[must_use]
    pub fn watch_interval(&self) -> watch::Receiver<Duration> {
        self.view(|state, _| state.decisions.interval.subscribe())
    }

    /// Changes when there may be room for waiters: at each tick, and whenever a limit changes or a guest leaves.
    #[must_use]
    pub fn watch_room(&self) -> watch::Receiver<()> {
        self.view(|state, _| state.waiters.watch_room())
    }

    /// How long there has been no guest; and whether there ever was one.
    #[must_use]
    pub fn idle(&self) -> (Duration, bool) {
        self.view(|state, now| match state.guests.empty_since() {
            _ if !state.guests.is_empty() || !state.waiters.is_empty() => (Duration::ZERO, true),
            Some(since) => (now.saturating_duration_since(since), true),
            None => (now.saturating_duration_since(state.host.started_at()), false),
        })
    }
}
