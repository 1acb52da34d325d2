//! What must hold whatever the order.

use super::block::Seen;
use super::head::Mode;
use super::model::{FRAMES, Flows, Table, change};
use super::state::State;
use super::transition::Transition::{self, Deflate, Fault, Inflate, Report, Touch};
use loom::sync::Arc;
use loom::thread;
use std::ops::Range;

const WHOLE: Range<usize> = 0..FRAMES;

/// Every order with at most so many switches from a thread that could have gone on.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

type Step = (Range<usize>, Transition);

/// `before` by one thread, then each of `writers` at once, and a check of what is there in the end.
fn writers(preemptions: usize, before: &'static [Step], writers: &'static [&'static [Step]]) {
    explore(preemptions, move || {
        let table = Arc::new(Table::new());
        let mut flows = Flows::default();
        for (frames, transition) in before {
            flows = flows.and(&table.apply(frames.clone(), *transition, 1));
        }
        let threads: Vec<_> = (0u16..)
            .zip(writers)
            .map(|(writer, steps)| {
                let table = Arc::clone(&table);
                thread::spawn(move || {
                    steps.iter().fold(Flows::default(), |flows, (frames, transition)| {
                        flows.and(&table.apply(frames.clone(), *transition, 2 + writer))
                    })
                })
            })
            .collect();
        for thread in threads {
            flows = flows.and(&thread.join().unwrap());
        }
        table.check(&flows);
    });
}

#[test]
fn two_frames_of_a_uniform_block_differ_at_once() {
    writers(4, &[], &[&[(0..1, Touch)], &[(1..2, Inflate)]]);
}

#[test]
fn one_frame_is_changed_by_two() {
    writers(4, &[], &[&[(0..1, Touch), (0..1, Inflate)], &[(0..1, Inflate), (0..1, Deflate)]]);
}

#[test]
fn a_uniform_block_changes_as_a_whole_and_in_part() {
    writers(4, &[], &[&[(WHOLE, Inflate), (WHOLE, Deflate)], &[(1..2, Touch)]]);
}

#[test]
fn two_fold_a_mixed_block() {
    writers(3, &[(0..1, Touch)], &[&[(WHOLE, Inflate)], &[(WHOLE, Report)]]);
}

#[test]
fn a_block_is_folded_while_a_frame_changes() {
    writers(4, &[(0..1, Touch)], &[&[(WHOLE, Inflate)], &[(0..1, Touch)]]);
    writers(4, &[(0..1, Touch)], &[&[(WHOLE, Inflate)], &[(1..2, Touch)]]);
}

#[test]
fn a_block_is_folded_twice_while_a_frame_changes() {
    writers(2, &[(0..1, Touch)], &[&[(WHOLE, Inflate), (0..1, Deflate), (WHOLE, Inflate)], &[(1..2, Touch)]]);
}

#[test]
fn a_fold_that_a_frame_refuses_leaves_it_alone() {
    writers(
        3,
        &[(0..1, Transition::Map)],
        &[&[(WHOLE, Inflate)], &[(1..2, Fault), (0..1, Transition::Unmap)]],
    );
}

#[test]
fn three_write_at_once() {
    writers(2, &[(0..1, Touch)], &[&[(WHOLE, Inflate)], &[(0..1, Fault)], &[(WHOLE, Report)]]);
}

#[test]
fn a_reader_sees_what_a_frame_was_or_is() {
    explore(3, || {
        let table = Arc::new(Table::new());
        let before = table.apply(0..1, Fault, 1);
        let writer = {
            let table = Arc::clone(&table);
            thread::spawn(move || table.apply(WHOLE, Inflate, 2).and(&table.apply(1..2, Deflate, 2)))
        };
        for frame in 0..FRAMES {
            let entry = table.block().read(frame).expect("caught within the attempts");
            let legal: &[State] = if frame == 0 {
                &[State::Private, State::Ballooned]
            } else {
                &[State::Untouched, State::Ballooned]
            };
            assert!(legal.contains(&entry.state()), "frame {frame} is {entry:?}");
            assert_eq!(entry.owner(), u16::from(entry.state() == State::Private));
        }
        let flows = writer.join().unwrap().and(&before);
        table.check(&flows);
    });
}

/// A scan saw a frame with memory; meanwhile the balloon released it and recorded that. The balloon must win.
#[test]
fn what_was_seen_before_never_overrides_what_came_after() {
    for before in [&[][..], &[(0..1, Inflate)], &[(WHOLE, Inflate)], &[(WHOLE, Inflate), (1..2, Deflate)]] {
        explore(4, move || {
            let table = Arc::new(Table::new());
            let mut flows = Flows::default();
            for (frames, transition) in before {
                flows = flows.and(&table.apply(frames.clone(), *transition, 1));
            }
            let mut raw = vec![];
            let head = table.block().see(&mut raw).expect("nobody folds yet");
            let device = {
                let table = Arc::clone(&table);
                thread::spawn(move || table.apply(WHOLE, Inflate, 2))
            };
            let seen =
                if head.mode() == Mode::Uniform { Seen::Uniform(head) } else { Seen::Mixed(head, &raw) };
            let mut mine = Flows::default();
            mine.note(&table.block().apply_since(seen, WHOLE, &change(Touch, 1)), State::Private);
            flows = flows.and(&mine).and(&device.join().unwrap());
            table.check(&flows);
            for frame in 0..FRAMES {
                let entry = table.block().read(frame).expect("every frame is something");
                assert_eq!(entry.state(), State::Ballooned, "the balloon came last or was not overridden");
            }
        });
    }
}
