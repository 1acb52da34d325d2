use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

const LOW: Region = Region::ram(0, 1024);
const HIGH: Region = Region::ram(1 << 20, 512);

const IMAGE: Region = Region::image(1 << 21, 1024);

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
fn where_only_residency_is_known_the_rest_of_ram_is_unknown_and_tiles() {
    let table = FrameTable::new(&[LOW, HIGH, IMAGE]).unwrap();
    table.set_residency_only();
    let reader = FrameReader::open(table.fd()).unwrap();
    table.apply(10, 600, Transition::Touch);
    table.apply(100, 50, Transition::Vanish);
    table.apply(IMAGE.first, 3, Transition::Map);
    let totals = reader.totals();
    assert_eq!((totals.private, totals.unknown, totals.shared, totals.untouched), (550, 986, 3, 1021));
    assert_eq!((totals.frames, totals.untiled), (550 + 986 + 3 + 1021, 0));
    assert!(totals.agrees(&reader.totals_from_entries()) && totals.agrees(&reader.totals_from_blocks()));
    let by_region = reader.totals_by_region();
    assert_eq!((by_region[0].1.unknown, by_region[1].1.unknown, by_region[2].1.unknown), (474, 512, 0));
}

#[test]
fn the_table_takes_four_bytes_a_frame_and_little_more() {
    let frames = 1u64 << 18; // 1 GiB
    let bytes = layout::table_bytes(frames).unwrap() as u64;
    assert_eq!(bytes, 4 * frames + 32 * frames / 512 + 8192);
}

#[test]
fn a_table_whose_blocks_are_alike_takes_no_memory_for_entries() {
    let table = FrameTable::new(&[Region::ram(0, 1 << 18)]).unwrap();
    table.apply(0, 1 << 18, Transition::Touch);
    table.apply(0, 1 << 17, Transition::Inflate);
    let stat = rustix::fs::fstat(table.fd()).unwrap();
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
        .filter(|(from, to)| TRANSITIONS.iter().any(|each| each.to() == *to && each.sources().contains(from)))
        .collect();
    assert_eq!(pairs.len(), 22, "{pairs:?}");
    let table = FrameTable::new(&[LOW, IMAGE]).unwrap();
    for transition in TRANSITIONS {
        assert!(!transition.sources().contains(&transition.to()), "{transition:?}");
        for (from, (region, block)) in STATES.iter().flat_map(|s| [(*s, (LOW, 0)), (*s, (IMAGE, 2))]) {
            table.mapping_for_test().block(block).entries[3]
                .store(entry::Entry::new(from, 9, 1, false).bits(), Relaxed);
            let outcome = table.apply(region.first + 3, 1, transition);
            assert_eq!(
                outcome.changed == 1,
                transition.sources().contains(&from) && transition.is_legal_in(region.kind),
                "{transition:?} from {from:?} in {region:?}"
            );
            let now = if outcome.changed == 1 { transition.to() } else { from };
            assert_eq!(table.state(region.first + 3), Some(now));
        }
    }
}

/// I4: what balloon, reporting, scans and the reclaim ladder do to RAM is refused in an image, and counted.
#[test]
fn i4_in_an_image_pages_are_mapped_and_unmapped_and_nothing_else_happens() {
    let table = FrameTable::new(&[LOW, HIGH, IMAGE]).unwrap();
    let reader = FrameReader::open(table.fd()).unwrap();
    assert_eq!((reader.ram_bytes(), reader.image_bytes()), (1536 * 4096, 1024 * 4096));
    for frames in [0, 700] {
        assert_eq!(table.apply(IMAGE.first, frames, Transition::Map).changed, frames);
        for transition in TRANSITIONS {
            if !matches!(transition, Transition::Map | Transition::Unmap) {
                let outcome = table.apply(IMAGE.first, 1024, transition);
                assert_eq!(outcome, RunOutcome { refused: 1024, ..RunOutcome::default() }, "{transition:?}");
            }
        }
        for to in [State::Private, State::Ballooned, State::Reported, State::Compressed, State::Swapped] {
            assert_eq!(table.set(IMAGE.first, 1024, to).refused, 1024, "{to:?}");
        }
        assert_eq!(reader.totals().shared, frames);
    }
    for transition in [Transition::Map, Transition::Unmap] {
        assert_eq!(table.apply(0, 1024, transition).refused, 1024, "RAM is never shared");
    }
    assert_eq!(table.set(0, 1024, State::Shared).refused, 1024);
    assert_eq!(table.set(IMAGE.first, 600, State::Untouched).changed, 600);
    assert_eq!((reader.totals().shared, reader.totals().untiled), (100, 0));
    assert_eq!(reader.totals(), reader.totals_from_entries());
}

#[test]
fn totals_and_runs_are_told_by_region_and_tile_in_each() {
    let table = FrameTable::new(&[LOW, HIGH, IMAGE]).unwrap();
    let reader = FrameReader::open(table.fd()).unwrap();
    table.apply(100, 50, Transition::Fault);
    table.apply(HIGH.first, 512, Transition::Inflate);
    table.apply(IMAGE.first + 16, 16, Transition::Map);
    let told: Vec<_> = reader
        .totals_by_region()
        .iter()
        .map(|(region, t)| (*region, t.frames, t.untouched, t.private, t.ballooned, t.shared, t.untiled))
        .collect();
    let expected =
        [(LOW, 1024, 974, 50, 0, 0, 0), (HIGH, 512, 0, 0, 512, 0, 0), (IMAGE, 1024, 1008, 0, 0, 16, 0)];
    assert_eq!(told, expected);
    let mut shared = vec![];
    reader.for_each_run_in(IMAGE.first, |run| {
        if run.frame.is_some_and(|frame| frame.state == State::Shared) {
            shared.push((run.first, run.count, run.frame.unwrap().owner));
        }
    });
    assert_eq!(shared, [(IMAGE.first + 16, 16, 0)]);
    reader.for_each_run_in(IMAGE.first + 1, |run| panic!("no region begins there: {run:?}"));
    assert_eq!(table.total(RegionKind::Ram, State::Untouched), 974);
    assert_eq!(table.total(RegionKind::Image, State::Untouched), 1008);
}

#[test]
fn the_error_of_mapped_pages_is_published_apart_from_that_of_ram() {
    let table = FrameTable::new(&[LOW, IMAGE]).unwrap();
    let reader = FrameReader::open(table.fd()).unwrap();
    let told = || {
        let totals = reader.totals();
        (totals.error_frames_max, totals.shared_error_frames_max, totals.shared_checked_age_ms.is_some())
    };
    assert_eq!(told(), (1024, 1024, false), "every frame of both may be wrong");
    table.checked(5, ErrorSource::KernelTotal);
    table.checked_images(7);
    assert_eq!(told(), (5, 7, true));
    table.checked_images(u64::MAX);
    assert_eq!(told(), (5, 1024, true), "never more than there are");
}

#[test]
fn counts_that_are_read_late_are_within_the_bound_that_was_read_before_them() {
    let table = FrameTable::new(&[LOW, IMAGE]).unwrap();
    let reader = FrameReader::open(table.fd()).unwrap();
    // The guest touched and mapped so many frames, and no scan found them yet.
    let (touched, mapped) = (300, 200);
    let scan = || {
        table.apply(LOW.first, touched, Transition::Touch);
        table.apply(IMAGE.first, mapped, Transition::Map);
        table.reconciled();
        table.checked(1, ErrorSource::KernelTotal);
        table.checked_images(1);
    };
    table.checked(touched, ErrorSource::KernelTotal);
    table.checked_images(mapped);
    let totals = reader.totals_after(scan);
    assert!(totals.private + totals.error_frames_max >= touched, "{totals:?}");
    assert!(totals.shared + totals.shared_error_frames_max >= mapped, "{totals:?}");
    assert_eq!(
        (totals.private, totals.shared),
        (touched, mapped),
        "the counts are those of the later moment"
    );
    // And the bounds late: what comes between is in a bound that is older than the counts, and on top of the next one.
    let totals = reader.totals_after(|| table.checked(touched, ErrorSource::KernelTotal));
    assert_eq!((totals.private, totals.error_frames_max), (touched, 1));
}

#[test]
fn as_many_images_as_a_guest_may_have_fit_beside_its_ram() {
    let images = (0..16).map(|index| Region::image((2 << 20) + index * 0x8000, 512));
    let regions: Vec<Region> = [LOW, HIGH].into_iter().chain(images).collect();
    let table = FrameTable::new(&regions).unwrap();
    let reader = FrameReader::open(table.fd()).unwrap();
    for region in &regions[2..] {
        assert_eq!(table.apply(region.first, 512, Transition::Map).changed, 512);
    }
    assert_eq!((reader.regions(), reader.totals().shared, reader.totals().untiled), (&*regions, 8192, 0));
    let more: Vec<Region> = regions.iter().copied().chain([Region::image(1 << 24, 512)]).collect();
    assert!(FrameTable::new(&more).is_err());
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
    // A number of an older version: a writer that is hostile cannot claim with it that nothing is missing.
    assert_eq!(ErrorSource::from_bits(3), ErrorSource::Never);
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
    assert_eq!(
        table.apply_since(&snapshot, 0, 511, Transition::Touch).changed,
        510,
        "frames are distinguished"
    );
    assert_eq!(table.apply_since(&snapshot, 601, 99, Transition::Touch).changed, 99);
    assert_eq!(table.apply_since(&snapshot, 1023, 2, Transition::Touch).refused, 2, "outside the snapshot");
    table.snapshot(1, 512, &mut snapshot);
    assert_eq!(snapshot.count(), 0, "whole blocks alone");
}

#[test]
fn malformed_regions_are_refused() {
    for regions in [
        vec![],
        vec![Region::ram(1, 512)],
        vec![Region::ram(0, 0)],
        vec![HIGH, LOW],
        vec![LOW, LOW],
        vec![Region::ram(u64::MAX - 511, 1024)],
        vec![Region::ram(0, 1 << 31)],
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
        runs in prop::collection::vec(
            (0u64..2600, 1u64..1100, 0usize..TRANSITIONS.len(), 1u16..4, any::<bool>()),
            1..60,
        ),
    ) {
        let table = FrameTable::new(&[LOW, HIGH, IMAGE]).unwrap();
        let reader = FrameReader::open(table.fd()).unwrap();
        let all = (0..1024).chain(HIGH.first..HIGH.first + 512).chain(IMAGE.first..IMAGE.first + 1024);
        let mut model: HashMap<u64, (State, u16)> = all.map(|f| (f, (State::Untouched, 0))).collect();
        let mut snapshot = Snapshot::default();
        for (first, count, transition, owner, whole) in runs {
            // Half of the runs are whole blocks, so that blocks become alike and differ again.
            let (first, count) = if whole { (first / 512 * 512, count.next_multiple_of(512)) } else { (first, count) };
            let first = match first {
                0..1024 => first,
                1024..1536 => HIGH.first + first - 1024,
                _ => IMAGE.first + first - 1536,
            };
            let kind = if first >= IMAGE.first { RegionKind::Image } else { RegionKind::Ram };
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
                    if transition.sources().contains(state) && transition.is_legal_in(kind) {
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
            for (region, totals) in reader.totals_by_region() {
                prop_assert_eq!((totals.untiled, totals.frames), (0, region.count));
            }
        }
        for (frame, (state, owner)) in model {
            prop_assert_eq!(table.state(frame), Some(state));
            prop_assert_eq!(table.owner(frame), Some(owner));
        }
    }
}
