//! The truth that the systems are measured against.
//!
//! **Definition.** Time is cut into windows of [`WINDOW_MS`]. The time for which a frame is resident in a window is
//! divided equally among the containers that used it in that window, whether they still map it or not; if none did,
//! among those that used it last. A use is a `touch`, a `share` or a `use` of a trace. What a guest used before it
//! moved belongs to its new container if its charges move with it, and to its old one if they stay.
//!
//! It is computed frame by frame from the trace alone, from what an accounting system cannot see: every use.

use super::host::{Host, range};
use super::trace::{Event, MovedCharges, Trace};
use accounting::{ContainerId, Run, User};
use std::collections::BTreeMap;

/// Length of a window, milliseconds.
pub const WINDOW_MS: u64 = 1000;

/// Frame-milliseconds by container.
pub type FrameMs = BTreeMap<ContainerId, f64>;

#[derive(Debug, Clone, Default)]
struct Frame {
    /// Since when it is resident without having been divided.
    since_ms: Option<u64>,
    used: Vec<User>,
    used_last: Vec<User>,
}

/// The truth of a trace.
#[derive(Debug, Default)]
pub struct Truth {
    /// By window.
    pub windows: Vec<FrameMs>,
    /// What was divided in the window that is open.
    open: FrameMs,
    frames: Vec<Frame>,
}

impl Truth {
    /// Finds the truth of a trace that can happen.
    #[must_use]
    pub fn of(trace: &Trace) -> Self {
        let (mut truth, mut host) = (Self::default(), Host::default());
        for timed in &trace.events {
            while truth.next_end_ms() <= timed.at_ms {
                truth.close_window(truth.next_end_ms());
            }
            host.apply(&timed.event).expect("the trace was played before");
            truth.see(&host, &timed.event, timed.at_ms);
        }
        if truth.next_end_ms() - WINDOW_MS < trace.length_ms() {
            truth.close_window(trace.length_ms());
        }
        truth
    }

    fn next_end_ms(&self) -> u64 {
        (self.windows.len() as u64 + 1) * WINDOW_MS
    }

    fn see(&mut self, host: &Host, event: &Event, now_ms: u64) {
        let user = |guest| User { guest, container: host.container(guest).expect("checked by the host") };
        let Self { frames, open, .. } = self;
        match *event {
            Event::Touch { guest, first, count, .. } => {
                let run = range(Run { first, count });
                if run.end > frames.len() {
                    frames.resize(run.end, Frame::default());
                }
                let touched = Frame { since_ms: Some(now_ms), used: vec![user(guest)], used_last: vec![] };
                frames[run].fill(touched);
            }
            Event::Share { guest, first, count } | Event::Use { guest, first, count } => {
                let by = user(guest);
                for frame in &mut frames[range(Run { first, count })] {
                    if !frame.used.contains(&by) {
                        frame.used.push(by);
                    }
                }
            }
            Event::Free { first, count } => {
                for frame in &mut frames[range(Run { first, count })] {
                    frame.divide(now_ms, open);
                    *frame = Frame::default();
                }
            }
            Event::Move { guest, container, charges: MovedCharges::Move } => {
                let users =
                    frames.iter_mut().flat_map(|frame| frame.used.iter_mut().chain(&mut frame.used_last));
                users.filter(|user| user.guest == guest).for_each(|user| user.container = container);
            }
            _ => {}
        }
    }

    fn close_window(&mut self, end_ms: u64) {
        for frame in &mut self.frames {
            frame.divide(end_ms, &mut self.open);
            if !frame.used.is_empty() {
                frame.used_last = std::mem::take(&mut frame.used);
            }
        }
        self.windows.push(std::mem::take(&mut self.open));
    }
}

impl Frame {
    /// Divides the time since it was divided last.
    fn divide(&mut self, now_ms: u64, among: &mut FrameMs) {
        let Some(since_ms) = self.since_ms.replace(now_ms) else {
            self.since_ms = None;
            return;
        };
        let users = if self.used.is_empty() { &self.used_last } else { &self.used };
        let mut payers: Vec<ContainerId> = users.iter().map(|user| user.container).collect();
        payers.sort_unstable();
        payers.dedup();
        // Frame-milliseconds are far below 2^53, and the order of the sums is fixed: the same trace, the same
        // figures.
        let part = (now_ms - since_ms) as f64 / payers.len() as f64;
        payers.into_iter().for_each(|payer| *among.entry(payer).or_default() += part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(text: &str) -> Vec<Vec<(u16, f64)>> {
        let truth = Truth::of(&Trace::parse("test", text).unwrap());
        truth
            .windows
            .into_iter()
            .map(|window| window.into_iter().map(|(id, ms)| (id.0, ms)).collect())
            .collect()
    }

    #[test]
    fn the_containers_that_use_a_frame_in_a_window_are_charged_for_it() {
        let text = r#"
{"at_ms":0,"event":"attach","guest":1,"container":1}
{"at_ms":0,"event":"attach","guest":2,"container":2}
{"at_ms":500,"event":"touch","guest":1,"first":0,"count":10,"kind":"pool"}
{"at_ms":1000,"event":"share","guest":2,"first":0,"count":10}
{"at_ms":1100,"event":"unshare","guest":2,"first":0,"count":10}
{"at_ms":2500,"event":"use","guest":1,"first":0,"count":5}
{"at_ms":2600,"event":"free","first":0,"count":5}
{"at_ms":3000,"event":"end"}"#;
        // Only the first used it; only the second did, for a moment; half is of the first, half still of the second.
        let expected = vec![vec![(1, 5000.0)], vec![(2, 10_000.0)], vec![(1, 3000.0), (2, 5000.0)]];
        assert_eq!(truth(text), expected);
    }

    #[test]
    fn charges_that_move_with_a_guest_belong_to_its_new_container() {
        for (charges, container) in [("move", 2), ("leave", 1)] {
            let text = format!(
                r#"
{{"at_ms":0,"event":"attach","guest":1,"container":1}}
{{"at_ms":0,"event":"touch","guest":1,"first":0,"count":1,"kind":"private"}}
{{"at_ms":1000,"event":"move","guest":1,"container":2,"charges":"{charges}"}}
{{"at_ms":1500,"event":"end"}}"#
            );
            assert_eq!(truth(&text), vec![vec![(1, 1000.0)], vec![(container, 500.0)]]);
        }
    }
}
