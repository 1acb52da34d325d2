use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::os::fd::AsFd;

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
    assert_eq!(bytes, 4 * frames + 16 * frames / 512 + 4096);
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
fn what_is_no_table_is_refused() {
    let (table, _) = table();
    table.mapping_for_test().header().version.store(VERSION + 1, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(FrameReader::open(table.fd()), Err(LayoutError::Version { found }) if found == VERSION + 1));
    table.mapping_for_test().header().version.store(VERSION, std::sync::atomic::Ordering::Relaxed);
    table.mapping_for_test().header().regions[0][1].store(1 << 20, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(FrameReader::open(table.fd()), Err(LayoutError::Truncated { .. })));
    table.mapping_for_test().header().magic.store(1, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(FrameReader::open(table.fd()), Err(LayoutError::Magic(1))));
    let file = std::fs::File::open("/dev/null").unwrap();
    assert!(matches!(FrameReader::open(file.as_fd()), Err(LayoutError::Unsealed)));
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
fn a_reader_sees_whole_runs_while_two_writers_work() {
    let (table, reader) = table();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let (table, stop) = (&table, &stop);
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    table.set(writer * 100, 600, State::Private);
                    table.set(writer * 100, 600, State::Ballooned);
                }
            });
        }
        let mut stable = 0;
        while stable < 200 {
            let totals = reader.totals();
            if !totals.torn {
                stable += 1;
                assert_eq!(totals.untiled, 0, "{totals:?}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(reader.totals(), reader.totals_from_entries());
}

proptest! {
    /// The table against the simplest model there is: a map from frame to state.
    #[test]
    fn the_table_agrees_with_a_map(runs in prop::collection::vec((0u64..1600, 1u64..700, 0usize..7), 1..40)) {
        let (table, reader) = table();
        let mut model: HashMap<u64, State> = (0..1024).chain(HIGH.first..HIGH.first + 512).map(|f| (f, State::Untouched)).collect();
        for (first, count, state) in runs {
            let first = if first >= 1024 { HIGH.first + first - 1024 } else { first };
            let to = STATES[state];
            let inside = (first..first + count).all(|f| model.contains_key(&f));
            let outcome = table.set(first, count, to);
            prop_assert_eq!(outcome.changed + outcome.repeated + outcome.refused, count);
            if inside {
                let mut changed = 0;
                for frame in first..first + count {
                    let now = model.get_mut(&frame).unwrap();
                    if now.may_become(to) && *now != to { *now = to; changed += 1; }
                }
                prop_assert_eq!(outcome.changed, changed);
            } else {
                prop_assert_eq!(outcome.refused, count);
            }
            let totals = reader.totals();
            prop_assert_eq!(totals.untiled, 0);
            prop_assert_eq!(&totals, &reader.totals_from_blocks());
            prop_assert_eq!(&totals, &reader.totals_from_entries());
        }
        for (frame, state) in model { prop_assert_eq!(table.state(frame), Some(state)); }
    }
}
