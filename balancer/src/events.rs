//! Events: a bounded ring that has the events since a given one, and wakes clients that wait for more.

use crate::objects::Event;
use protocol::path::ContainerPath;
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Events that are kept.
pub const EVENTS_MAX: usize = 4096;
/// Kind of the event that a client is sent instead of those that it missed.
pub const EVENTS_MISSED: &str = "events_missed";
/// Longest text of an event that a `vmm` sends, bytes: a longer text is cut.
const DETAIL_BYTES_MAX: usize = 512;

/// Numbers that are reserved in the journal at a time, and those that must be left: so the journal is written once for
/// thousands of events, and a balancer that is killed leaves a gap instead of numbers that are given twice.
const RESERVED: u64 = 4096;
const RESERVED_LEFT_MIN: u64 = 1024;

/// The ring.
#[derive(Debug)]
pub struct Events {
    ring: VecDeque<Event>,
    last: watch::Sender<u64>,
    /// No event may exceed this number before the journal says so.
    reserved: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self::after(0)
    }
}

impl Events {
    /// No events yet; the first one will follow this number.
    #[must_use]
    pub fn after(last: u64) -> Self {
        Self { ring: VecDeque::new(), last: watch::Sender::new(last), reserved: last }
    }

    /// Adds an event and wakes the tasks that wait.
    pub fn push(&mut self, kind: &str, guest: Option<&str>, container: Option<&ContainerPath>, detail: &str) {
        let id = self.last() + 1;
        let event = Event {
            id,
            at_ms: now_ms(),
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

    /// The first events after the one with this number, the oldest first; 0 means all that are kept. If events between
    /// the two are not kept, an [`EVENTS_MISSED`] that says so comes first.
    #[must_use]
    pub fn since(&self, id: u64, count_max: usize) -> Vec<Event> {
        let begin = self.ring.front().map_or(self.last() + 1, |first| first.id);
        let (next, last) = (id.saturating_add(1), self.last());
        let missed = (id != 0 && (next < begin || id > last)).then(|| missed(id, begin, last));
        // Numbers of one run have no gaps.
        let known = if missed.is_some() { 0 } else { next.saturating_sub(begin) };
        let kept = self.ring.iter().skip(usize::try_from(known).unwrap_or(usize::MAX));
        missed.into_iter().chain(kept.cloned()).take(count_max).collect()
    }

    /// The number of the last event.
    #[must_use]
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// A number to be reserved in the journal, and then with [`reserve`](Self::reserve), before more events come.
    #[must_use]
    pub fn wants(&self) -> Option<u64> {
        let last = self.last();
        (last + RESERVED_LEFT_MIN > self.reserved).then_some(last + RESERVED)
    }

    /// The journal says that events will not exceed this number; or cannot, and is asked again later.
    pub fn reserve(&mut self, reserved: u64) {
        self.reserved = reserved;
    }

    /// The id of the last event, to wait for the next.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

/// Tells a client that events which it has not seen are not kept. Its number is that of the last of them, so that the
/// client goes on with the first that is kept.
fn missed(after: u64, begin: u64, last: u64) -> Event {
    let why = format!("the balancer keeps the last {EVENTS_MAX} since its start");
    let detail = if after > last {
        format!(
            "There is no event {after}: the journal that counts events is another one. What is kept follows"
        )
    } else {
        format!("Events {} to {} are not kept: {why}", after + 1, begin - 1)
    };
    Event { id: begin - 1, at_ms: now_ms(), kind: EVENTS_MISSED.into(), guest: None, container: None, detail }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Text of another process as one line of bounded length.
fn cut(text: &str, bytes_max: usize) -> String {
    let whole = text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= bytes_max);
    whole.map(|(_, c)| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(events: &mut Events, count: usize) {
        (0..count).for_each(|_| events.push("tick", None, None, ""));
    }

    fn ids(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.id).collect()
    }

    #[test]
    fn the_ring_is_bounded_and_numbers_have_no_gaps() {
        let mut events = Events::default();
        assert!(events.since(0, 9).is_empty());
        pushed(&mut events, EVENTS_MAX + 10);
        let all = events.since(0, usize::MAX);
        assert_eq!((all.len(), all[0].id), (EVENTS_MAX, 11));
        assert!(all.windows(2).all(|pair| pair[1].id == pair[0].id + 1));
        assert_eq!(events.since(10, usize::MAX), all);
        assert_eq!(events.since(11, usize::MAX), all[1..]);
        assert_eq!(events.since(18, 2), all[8..10]);
        assert!(events.since(events.last(), 9).is_empty());
    }

    #[test]
    fn a_client_that_missed_events_is_told_and_goes_on_with_the_first_that_is_kept() {
        let mut events = Events::default();
        pushed(&mut events, EVENTS_MAX + 10);
        let told = events.since(3, 3);
        assert_eq!((told[0].kind.as_str(), ids(&told)), (EVENTS_MISSED, vec![10, 11, 12]));
        assert!(told[0].detail.contains("Events 4 to 10 are not kept"), "{}", told[0].detail);
        assert_eq!(events.since(told[0].id, usize::MAX).len(), EVENTS_MAX);
        for future in [events.last() + 1, u64::MAX] {
            let told = events.since(future, 2);
            assert_eq!((told[0].kind.as_str(), ids(&told)), (EVENTS_MISSED, vec![10, 11]));
            assert!(told[0].detail.contains(&future.to_string()), "{}", told[0].detail);
        }
    }

    #[test]
    fn numbers_go_on_after_those_that_were_reserved() {
        let mut events = Events::default();
        assert_eq!(events.wants(), Some(RESERVED));
        events.reserve(RESERVED);
        pushed(&mut events, (RESERVED - RESERVED_LEFT_MIN) as usize);
        assert_eq!(events.wants(), None);
        pushed(&mut events, 1);
        assert!(events.wants().is_some_and(|wanted| wanted > RESERVED));

        let mut next = Events::after(RESERVED);
        next.push("balancer_started", None, None, "");
        let told = next.since(100, 9);
        assert_eq!((told[0].kind.as_str(), ids(&told)), (EVENTS_MISSED, vec![RESERVED, RESERVED + 1]));
        assert_eq!(ids(&next.since(RESERVED, 9)), [RESERVED + 1], "it saw all of them");
        assert_eq!(ids(&next.since(0, 9)), [RESERVED + 1]);
    }

    #[test]
    fn text_of_other_processes_is_one_bounded_line() {
        let mut events = Events::default();
        events.push("x", None, None, &format!("a\nb{}", "\u{e9}".repeat(1000)));
        let detail = &events.since(0, 1)[0].detail;
        assert!(detail.starts_with("a b") && detail.len() <= DETAIL_BYTES_MAX);
    }
}
