//! Traces: what happened on a host, one JSON object per line.
//!
//! ```text
//! {"at_ms":0,"event":"attach","guest":1,"container":1}
//! {"at_ms":5,"event":"touch","guest":1,"first":0,"count":512,"kind":"private"}
//! {"at_ms":90,"event":"use","guest":1,"first":0,"count":16}
//! {"at_ms":5000,"event":"end"}
//! ```
//!
//! Times do not go back, the last event is `end`. Empty lines and lines that start with `#` are skipped.

use accounting::{ContainerId, GuestId, Kind, Run};
use serde::{Deserialize, Serialize};

/// Frame numbers of a trace are below this: 4 GiB of frames.
pub const FRAMES_MAX: u64 = 1 << 20;
/// Container ids of a trace are from 1 to this.
pub const CONTAINERS_MAX: u16 = 63;
/// Guest ids of a trace are from 1 to this.
pub const GUESTS_MAX: u16 = 1000;
/// Longest trace, milliseconds: an hour.
pub const LENGTH_MS_MAX: u64 = 3_600_000;

/// What happens to charges that a guest has when it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MovedCharges {
    /// They move with it.
    Move,
    /// They stay where they are.
    Leave,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "each field says what it is")]
pub enum Event {
    /// A guest starts in a container.
    Attach { guest: GuestId, container: ContainerId },
    /// Frames become resident and the guest maps and uses them.
    Touch { guest: GuestId, first: u64, count: u64, kind: Kind },
    /// The guest maps and uses frames that are resident.
    Share { guest: GuestId, first: u64, count: u64 },
    /// The guest uses frames that it maps. No accounting system sees this.
    Use { guest: GuestId, first: u64, count: u64 },
    /// The guest no longer maps them.
    Unshare { guest: GuestId, first: u64, count: u64 },
    /// Frames that one guest maps, or none, leave the host.
    Free { first: u64, count: u64 },
    /// The guest moves to another container.
    Move { guest: GuestId, container: ContainerId, charges: MovedCharges },
    /// A container without guests is removed.
    Remove { container: ContainerId },
    /// The trace is over.
    End {},
}

impl Event {
    /// The frames it is about.
    #[must_use]
    pub fn run(&self) -> Option<Run> {
        match *self {
            Self::Touch { first, count, .. }
            | Self::Share { first, count, .. }
            | Self::Use { first, count, .. }
            | Self::Unshare { first, count, .. }
            | Self::Free { first, count } => Some(Run { first, count }),
            _ => None,
        }
    }
}

/// An event and when it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// Milliseconds since the trace began.
    pub at_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// A trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Its name.
    pub name: String,
    /// What happened, in order; the last is the end.
    pub events: Vec<Timed>,
}

/// Why a text is not a trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A line that is not an event, or an event that cannot happen there.
    #[error("Line {line} of the trace: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// It stops in the middle.
    #[error("The trace has no end: its last line must be {{\"at_ms\":...,\"event\":\"end\"}}")]
    NoEnd,
}

impl Trace {
    /// Reads a trace and plays it once, so that what is returned can happen.
    ///
    /// # Errors
    /// The first line that is malformed or cannot happen, and why.
    pub fn parse(name: &str, text: &str) -> Result<Self, TraceError> {
        let mut events: Vec<Timed> = Vec::new();
        let mut host = super::host::Host::default();
        for (index, text) in text.lines().enumerate() {
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let fail = |reason: String| TraceError::Line { line: index + 1, reason };
            let timed: Timed = serde_json::from_str(text).map_err(|error| {
                let text = error.to_string();
                fail(text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text).to_owned())
            })?;
            let before = events.last().map_or(0, |last| last.at_ms);
            if timed.at_ms < before || timed.at_ms > LENGTH_MS_MAX {
                let at = timed.at_ms;
                return Err(fail(format!(
                    "at_ms is {at}, but must be between {before}, that of the line before, and {LENGTH_MS_MAX}"
                )));
            }
            if matches!(events.last(), Some(Timed { event: Event::End {}, .. })) {
                return Err(fail("the trace has ended already".into()));
            }
            host.apply(&timed.event).map_err(fail)?;
            events.push(timed);
        }
        match events.last() {
            Some(Timed { event: Event::End {}, .. }) => Ok(Self { name: name.into(), events }),
            _ => Err(TraceError::NoEnd),
        }
    }

    /// The trace as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            text += &serde_json::to_string(event).expect("an event has only plain fields");
            text.push('\n');
        }
        text
    }

    /// When it ends, milliseconds.
    #[must_use]
    pub fn length_ms(&self) -> u64 {
        self.events.last().map_or(0, |last| last.at_ms)
    }
}
