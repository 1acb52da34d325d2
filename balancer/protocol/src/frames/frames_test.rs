use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

const LOW: Region = Region { first: 0, count: 1024 };
const HIGH: Region = Region { first: 1 << 20, count: 512 };

fn table() -> (FrameTable, FrameReader) {
    let table = FrameTable::new(&[LOW, HIGH]).unwrap();
    let reader = FrameReader::open(table.fd()).unwrap();
    (table, reader)
}

#[test]
fn a_new_table_is_untouched_and_tiles() {
    let (_table, reader) = table();
    let totals = reader.totals();
    assert_eq!((totals.frames, totals.untouched, totals.untiled), (1536, 1536, 0));
    assert_eq!(totals, reader.totals_from_entries());
    assert_eq!(totals.reconciled_age_ms, None);
}

#[test]
fn the_table_takes_four_bytes_a_frame_and_little_more() {
    let frames = 1u64 << 18; // 1 GiB
    let bytes = layout::table_bytes(frames).unwrap() as u64;
    assert_eq!(bytes, 4 * frames + 32 * frames / 512 + 4096);
}

#[test]
fn a_table_whose_blocks_are_alike_takes_no_memory_for_entries() {
    use std::os::fd::AsRawFd;
    let table = FrameTable::new(&[Region { first: 0, count: 1 << 18 }]).unwrap();
    table.apply(0, 1 << 18, Transition::Touch);
    table.apply(0, 1 << 17, Transition::Inflate);
    // SAFETY: zeroed is a valid stat, and fstat fills it.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: a descriptor that is open and a valid pointer.
    assert_eq!(unsafe { libc::fstat(table.fd().as_raw_fd(), &raw mut stat) }, 0);
    assert_eq!(stat.st_blocks * 512, 4096 + 32 * 512, "header and blocks alone");
    table.apply(7, 1, Transition::Deflate);
    let totals = FrameReader::open(table.fd()).unwrap().totals_from_entries();
    assert_eq!((totals.untouched, totals.ballooned, totals.private), (1, (1 << 17) - 1, 1 << 17));
}

#[test]
fn a_frame_is_owned_by_who_touches_it_first() {
    let (table, reader) = table();
    table.set_owner(7);
    assert_eq!(table.set(10, 5, State::Private).changed, 5);
    table.set_owner(8);
    assert_eq!(table.set(12, 5, State::Private), RunOutcome { changed: 2, repeated: 3, refused: 0 });
    assert_eq!(reader.private_by_owner(), [(7, 5), (8, 2)].into());
}

#[test]
fn runs_outside_the_regions_change_nothing() {
    let (table, reader) = table();
    for (first, count) in [(1020, 8), (1 << 19, 1), (u64::MAX, 2), ((1 << 20) + 511, 2), (0, u64::MAX)] {
        assert_eq!(table.set(first, count, State::Private).changed, 0, "{first} {count}");
    }
    assert_eq!(reader.totals().untouched, 1536);
}

#[test]
fn a_ballooned_frame_in_use_again_is_a_refault() {
    let (table, reader) = table();
    table.set(0, 4, State::Ballooned);
    table.set(0, 1, State::Private);
    assert_eq!((reader.totals().refaults, reader.totals().ballooned), (1, 3));
}

#[test]
fn a_reported_frame_in_use_again_is_counted_apart() {
    let (table, reader) = table();
    table.apply(0, 1024, Transition::Report);
    table.apply(512, 512, Transition::Touch);
    let totals = reader.totals();
    assert_eq!((totals.refaults, totals.reported_refaults, totals.reported), (0, 512, 512));
}

#[test]
fn transitions_are_the_only_way_from_state_to_state() {
    let pairs: Vec<(State, State)> = STATES
        .iter()
        .flat_map(|from| STATES.map(|to| (*from, to)))
        .filter(|(from, to)| from.may_become(*to))
        .collect();
    assert_eq!(pairs.len(), 22, "{pairs:?}");
    let (table, _) = table();
    for transition in TRANSITIONS {
        assert!(!transition.sources().contains(&transition.to()), "{transition:?}");
        for from in STATES {
            table.mapping_for_test().block(0).entries[3]
                .store(entry::Entry::new(from, 9, 1, false).bits(), Relaxed);
            let outcome = table.apply(3, 1, transition);
            assert_eq!(
                outcome.changed == 1,
                transition.sources().contains(&from),
                "{transition:?} from {from:?}"
            );
            assert_eq!(table.state(3), Some(if outcome.changed == 1 { transition.to() } else { from }));
        }
    }
}

#[test]
fn who_is_charged_stays_through_the_reclaim_ladder_and_no_longer() {
    let (table, reader) = table();
    table.set_owner(3);
    table.apply(0, 512, Transition::Fault);
    table.set_owner(4);
    for transition in [Transition::Compress, Transition::SwapOut, Transition::Restore] {
        assert_eq!(table.apply(0, 512, transition).changed, 512);
        assert_eq!(table.owner(511), Some(3), "{transition:?}");
    }
    assert_eq!(table.take_charges(8), 512);
    assert_eq!(reader.private_by_owner(), [(8, 512)].into());
    table.apply(100, 1, Transition::Inflate);
    assert_eq!(table.owner(100), Some(0));
    assert_eq!(table.take_charges(9), 511, "frame by frame as well");
    table.set_owner(10);
    table.apply(512, 3, Transition::Fault);
    assert_eq!(table.take_charges(10), 511, "what is charged there already does not change");
    assert_eq!(reader.private_by_owner(), [(10, 514)].into());
    let totals = reader.totals_from_entries();
    assert_eq!((totals.private, totals.ballooned, totals.untiled), (514, 1, 0));
}

#[test]
fn ages_are_told_in_minutes_until_they_are_too_long_ago() {
    const MINUTE: u64 = 60_000;
    let (table, reader) = table();
    let age = |frame: u64| {
        let mut found = None;
        reader.for_each_run(|run| {
            if frame >= run.first && frame - run.first < run.count {
                found = Some(run.frame.unwrap().age_ms);
            }
        });
        found.unwrap()
    };
    assert_eq!(age(0), Some(0));
    table.tick(3 * MINUTE + 5);
    table.apply(5, 1, Transition::Touch);
    assert_eq!((age(4), age(5), age(600)), (Some(3 * MINUTE), Some(0), Some(3 * MINUTE)));
    for minute in 4..1000 {
        table.tick(minute * MINUTE);
        if minute == 500 {
            table.apply(512, 512, Transition::Touch);
        }
        if minute == 560 {
            assert_eq!((age(5), age(600)), (None, Some(60 * MINUTE)));
        }
    }
    assert_eq!((age(4), age(5), age(600), age(HIGH.first)), (None, None, None, None));
    assert_eq!(reader.totals_from_entries().private, 513, "ages are all that changed");
}

#[test]
fn runs_of_equal_frames_are_read_at_once() {
    let (table, reader) = table();
    table.apply(500, 24, Transition::Fault);
    let mut runs = vec![];
    reader.for_each_run(|run| runs.push((run.first, run.count, run.frame.unwrap().state)));
    use State::{Private, Untouched};
    let expected =
        [(0, 500, Untouched), (500, 24, Private), (524, 500, Untouched), (HIGH.first, 512, Untouched)];
    assert_eq!(runs, expected);
}

#[test]
fn the_error_of_the_figures_is_published_with_its_age() {
    let (table, reader) = table();
    let totals = reader.totals();
    assert_eq!((totals.error_frames_max, totals.error_source), (1536, ErrorSource::Never));
    assert_eq!(totals.checked_age_ms, None);
    table.checked(20, ErrorSource::KernelTotal);
    let totals = reader.totals();
    assert_eq!((totals.error_frames_max, totals.error_source), (20, ErrorSource::KernelTotal));
    assert!(totals.checked_age_ms.is_some());
    table.checked(u64::MAX, ErrorSource::Scan);
    assert_eq!(reader.totals().error_frames_max, 1536, "never more than there are");
    table.set_strict(true);
    let totals = reader.totals();
    assert_eq!((totals.error_frames_max, totals.error_source), (0, ErrorSource::Strict));
}

#[test]
fn totals_of_before_these_fields_are_understood() {
    let text = r#"{"frames":1,"untouched":1,"private":0,"shared":0,"ballooned":0,"reported":0,"compressed":0,
        "swapped":0,"untiled":0,"refaults":0,"reconciled_age_ms":null,"torn":false}"#;
    let totals: Totals = serde_json::from_str(text).unwrap();
    assert_eq!((totals.frames, totals.error_source), (1, ErrorSource::Never));
}

#[test]
fn what_changed_since_the_snapshot_is_left_alone() {
    let (table, _) = table();
    let mut snapshot = Snapshot::default();
    table.apply(0, 512, Transition::Inflate);
    table.apply(600, 1, Transition::Inflate);
    table.snapshot(0, 1024, &mut snapshot);
    assert_eq!((snapshot.count(), snapshot.uniform_state(0)), (1024, Some(State::Ballooned)));
    assert_eq!((snapshot.state(600), snapshot.state(601)), (Some(State::Ballooned), Some(State::Untouched)));
    // Inflated once more: the state is the same, and yet what was seen before is not true any more.
    table.apply(600, 1, Transition::Inflate);
    table.apply(10, 1, Transition::Inflate);
    table.apply(700, 1, Transition::Report);
    assert_eq!(table.apply_since(&snapshot, 600, 1, Transition::Touch).refused, 1);
    assert_eq!(table.apply_since(&snapshot, 700, 1, Transition::Touch).refused, 1);
    assert_eq!(
        table.apply_since(&snapshot, 0, 512, Transition::Touch).refused,
        512,
        "the block changed as a whole"
    );
    assert_eq!(table.apply_since(&snapshot, 0, 511, Transition::Touch).changed, 510, "frames are told apart");
    assert_eq!(table.apply_since(&snapshot, 601, 99, Transition::Touch).changed, 99);
    assert_eq!(table.apply_since(&snapshot, 1023, 2, Transition::Touch).refused, 2, "outside the snapshot");
    table.snapshot(1, 512, &mut snapshot);
    assert_eq!(snapshot.count(), 0, "whole blocks alone");
}

#[test]
fn malformed_regions_are_refused() {
    for regions in [
        vec![],
        vec![Region { first: 1, count: 512 }],
        vec![Region { first: 0, count: 0 }],
        vec![HIGH, LOW],
        vec![LOW, LOW],
        vec![Region { first: u64::MAX - 511, count: 1024 }],
        vec![Region { first: 0, count: 1 << 31 }],
    ] {
        assert!(FrameTable::new(&regions).is_err(), "{regions:?}");
    }
}

#[test]
fn totals_tile_and_counts_agree_while_two_writers_work() {
    let (table, reader) = table();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (mut settled, mut most, mut wrong) = (0, 0u64, vec![]);
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let (table, stop) = (&table, &stop);
            scope.spawn(move || {
                let mut round = writer;
                while !stop.load(Relaxed) {
                    // Whole blocks, parts of blocks and single frames, over each other.
                    let (first, count) =
                        [(0, 1024), (writer * 100, 600), (512, 512), (round % 1024, 1)][round as usize % 4];
                    let transitions =
                        [Transition::Touch, Transition::Inflate, Transition::Deflate, Transition::Report];
                    table.apply(first, count, transitions[(round / 4) as usize % 4]);
                    round = round.wrapping_mul(5).wrapping_add(3);
                }
            });
        }
        for _ in 0..2000 {
            let (totals, counted) = (reader.totals(), reader.totals_from_entries());
            wrong.extend([&totals, &counted].into_iter().filter(|t| !t.torn && t.untiled != 0).cloned());
            settled += u32::from(!totals.torn);
            most = most.max(reader.private_by_owner().values().sum());
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(wrong, [], "a settled reading tiles");
    assert!(settled > 0, "a reader gets through");
    assert!(most <= 1536, "each frame is read once: {most}");
    let totals = reader.totals();
    assert_eq!((totals.untiled, totals.torn), (0, false));
    assert_eq!(totals, reader.totals_from_blocks());
    assert_eq!(totals, reader.totals_from_entries());
}

proptest! {
    /// The table against the simplest model there is: a map from frame to state and owner.
    #[test]
    fn the_table_agrees_with_a_map(
        runs in prop::collection::vec((0u64..1600, 1u64..1100, 0usize..TRANSITIONS.len(), 1u16..4, any::<bool>()), 1..60),
    ) {
        let (table, reader) = table();
        let mut model: HashMap<u64, (State, u16)> =
            (0..1024).chain(HIGH.first..HIGH.first + 512).map(|f| (f, (State::Untouched, 0))).collect();
        let mut snapshot = Snapshot::default();
        for (first, count, transition, owner, whole) in runs {
            // Half of the runs are whole blocks, so that blocks become alike and differ again.
            let (first, count) = if whole { (first / 512 * 512, count.next_multiple_of(512)) } else { (first, count) };
            let first = if first >= 1024 { HIGH.first + first - 1024 } else { first };
            let transition = TRANSITIONS[transition];
            table.set_owner(owner);
            let outcome = if whole && first < 1024 && owner == 1 {
                table.snapshot(0, 1024, &mut snapshot);
                table.apply_since(&snapshot, first, count, transition)
            } else {
                table.apply(first, count, transition)
            };
            prop_assert_eq!(outcome.changed + outcome.repeated + outcome.refused, count);
            if (first..first + count).all(|f| model.contains_key(&f)) {
                let mut changed = 0;
                for frame in first..first + count {
                    let (state, charged) = model.get_mut(&frame).unwrap();
                    if transition.sources().contains(state) {
                        *charged = match (state.is_charged(), transition.to().is_charged()) {
                            (_, false) => 0,
                            (true, true) => *charged,
                            (false, true) => owner,
                        };
                        *state = transition.to();
                        changed += 1;
                    }
                }
                prop_assert_eq!(outcome.changed, changed);
            } else {
                prop_assert_eq!(outcome.refused, count);
            }
            let totals = reader.totals();
            prop_assert_eq!((totals.untiled, totals.torn), (0, false));
            prop_assert_eq!(&totals, &reader.totals_from_blocks());
            prop_assert_eq!(&totals, &reader.totals_from_entries());
        }
        for (frame, (state, owner)) in model {
            prop_assert_eq!(table.state(frame), Some(state));
            prop_assert_eq!(table.owner(frame), Some(owner));
        }
    }
}
