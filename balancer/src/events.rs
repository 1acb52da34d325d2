//! Events: a bounded ring that has the events since a given one, and wakes clients that wait for more.

use crate::objects::Event;
use protocol::path::ContainerPath;
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Events that are kept.
pub const EVENTS_MAX: usize = 4096;
/// Longest text of an event that a `vmm` sends, bytes: a longer text is cut.
const DETAIL_BYTES_MAX: usize = 512;

/// The ring.
#[derive(Debug)]
pub struct Events {
    ring: VecDeque<Event>,
    last: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self { ring: VecDeque::new(), last: watch::Sender::new(0) }
    }
}

impl Events {
    /// Adds an event and wakes the tasks that wait.
    pub fn push(&mut self, kind: &str, guest: Option<&str>, container: Option<&ContainerPath>, detail: &str) {
        let id = *self.last.borrow() + 1;
        let event = Event {
            id,
            at_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            kind: cut(kind, 64),
            guest: guest.map(str::to_owned),
            container: container.cloned(),
            detail: cut(detail, DETAIL_BYTES_MAX),
        };
        let container = event.container.as_ref().map(ContainerPath::as_str);
        tracing::info!(kind = event.kind, guest = event.guest, container, detail = event.detail, "event");
        if self.ring.len() == EVENTS_MAX {
            self.ring.pop_front();
        }
        self.ring.push_back(event);
        self.last.send_replace(id);
    }

    /// Events after the one with this id, the oldest first. An id that is larger than any, from before a restart of the
    /// balancer, means all events.
    pub fn since(&self, id: u64) -> impl Iterator<Item = &Event> {
        let after = if id > *self.last.borrow() { 0 } else { id };
        // Ids have no gaps.
        let known = self.ring.front().map_or(0, |first| (after + 1).saturating_sub(first.id));
        self.ring.iter().skip(usize::try_from(known).unwrap_or(usize::MAX))
    }

    /// The id of the last event, to wait for the next.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

/// Text of another process as one line of bounded length.
fn cut(text: &str, bytes_max: usize) -> String {
    let whole = text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= bytes_max);
    whole.map(|(_, c)| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_and_ids_have_no_gaps() {
        let mut events = Events::default();
        for _ in 0..EVENTS_MAX + 10 {
            events.push("tick", None, None, "");
        }
        let all: Vec<_> = events.since(0).cloned().collect();
        assert_eq!((all.len(), all[0].id), (EVENTS_MAX, 11));
        assert!(all.windows(2).all(|pair| pair[1].id == pair[0].id + 1));
        assert_eq!(events.since(all[0].id).count(), EVENTS_MAX - 1);
        assert_eq!(events.since(all[7].id).next(), Some(&all[8]));
        assert_eq!(events.since(3).next(), Some(&all[0]));
        assert_eq!(events.since(u64::MAX).count(), EVENTS_MAX);
    }

    #[test]
    fn text_of_other_processes_is_one_bounded_line() {
        let mut events = Events::default();
        events.push("x", None, None, &format!("a\nb{}", "\u{e9}".repeat(1000)));
        let detail = &events.since(0).next().unwrap().detail;
        assert!(detail.starts_with("a b") && detail.len() <= DETAIL_BYTES_MAX);
    }
}
