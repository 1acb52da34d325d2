use super::*;
use protocol::frames::{FrameReader, FrameTable};
use std::ops::Range;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn byte_at(ram: &Ram, frame: u64) -> *mut u8 {
    ram.host(frame, 1).unwrap() as *mut u8
}

fn write(ram: &Ram, frame: u64) {
    // SAFETY: the frame is RAM of this test alone.
    unsafe { byte_at(ram, frame).write_volatile(1) };
}

fn read(ram: &Ram, frame: u64) {
    // SAFETY: as above.
    unsafe { byte_at(ram, frame).read_volatile() };
}

/// With or without huge pages, whatever this machine's default is.
fn small_pages(ram: &Ram) {
    ram.mapping.advise(0, ram.bytes(), mapping::Advice::Small).ok();
}

/// Held frames, runs that touch joined.
fn held(pagemap: &Pagemap, ram: &Ram, first: u64, count: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = vec![];
    let host = ram.host(first, count).unwrap();
    pagemap
        .held_runs(host, count, |run| match runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            Some(last) => {
                assert!(run.start > last.end, "ascending: {last:?} {run:?}");
                runs.push(run);
            }
            None => runs.push(run),
        })
        .unwrap();
    runs
}

/// All methods that this kernel has; at least reading.
fn methods() -> Vec<(&'static str, Pagemap)> {
    let mut methods = vec![("read", Pagemap::with_method(Method::Read).unwrap())];
    match Pagemap::with_method(Method::Scan) {
        Ok(scan) => {
            methods.push(("scan", scan));
            methods.push((
                "scan that doubts huge pages",
                Pagemap::with_method(Method::Scan).unwrap().doubting(),
            ));
        }
        Err(_) => skip::skip!(PagemapScan, "this kernel does not have PAGEMAP_SCAN"),
    }
    methods
}

#[test]
fn the_best_method_is_chosen() {
    let has_scan = Pagemap::with_method(Method::Scan).is_ok();
    assert_eq!(Pagemap::open().unwrap().method(), if has_scan { Method::Scan } else { Method::Read });
}

#[test]
fn what_is_written_is_held_and_what_is_read_is_not() {
    let ram = Ram::new(16 * MIB).unwrap();
    small_pages(&ram);
    for frame in [0, 5, 6, 7, 511, 512, 4095] {
        write(&ram, frame);
    }
    for frame in [1, 100, 4000] {
        read(&ram, frame);
    }
    for (name, pagemap) in methods() {
        assert_eq!(held(&pagemap, &ram, 0, 4096), [0..1, 5..8, 511..513, 4095..4096], "{name}");
        assert_eq!(held(&pagemap, &ram, 6, 506), [0..2, 505..506], "{name}: counted from where it begins");
        assert_eq!(pagemap.count_held(byte_at(&ram, 0) as u64, 4096).unwrap(), 7, "{name}");
        assert_eq!(pagemap.count_held(byte_at(&ram, 0) as u64, 0).unwrap(), 0, "{name}");
    }
}

#[test]
fn huge_pages_are_held_as_a_whole_and_the_huge_zero_page_is_not() {
    let ram = Ram::new(16 * MIB).unwrap();
    write(&ram, 512 + 7);
    read(&ram, 1024 + 7);
    // All of it: pages of zeros leave with the split of their huge page.
    (1536..2048).for_each(|frame| write(&ram, frame));
    ram.release(&Pagemap::open().unwrap(), 1536 + 100, 200).unwrap();
    let expected = held(&methods()[0].1, &ram, 0, 4096);
    let is_huge = expected.first() == Some(&(512..1024));
    if !is_huge {
        skip::skip!(HugePages, "this machine did not give a huge page");
    }
    for (name, pagemap) in methods() {
        let runs = held(&pagemap, &ram, 0, 4096);
        assert_eq!(runs, expected, "{name}");
        if is_huge {
            assert_eq!(runs, [512..1024, 1536..1636, 1836..2048], "{name}");
        }
    }
}

/// More regions than fit into one answer, and more than the kernel's own buffer holds.
#[test]
fn many_regions_are_seen_once_each() {
    let ram = Ram::new(32 * MIB).unwrap();
    small_pages(&ram);
    // 512 and 1024 regions exactly, then many.
    for (every, first, count) in [(2, 0, 1024), (2, 0, 2048), (2, 1, 8191), (3, 0, 8192)] {
        for frame in (first..first + count).step_by(every) {
            write(&ram, frame);
        }
        let runs = held(&methods()[0].1, &ram, 0, 8192);
        assert!(runs.len() > 500);
        for (name, pagemap) in methods() {
            assert_eq!(held(&pagemap, &ram, 0, 8192), runs, "{name}");
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
    /// All methods see the same after any touches and releases, with huge pages and without.
    #[test]
    fn all_methods_agree(
        steps in proptest::collection::vec((0u64..4096, 1u64..1500, 0u8..3), 1..20), huge in proptest::bool::ANY,
    ) {
        let ram = Arc::new(Ram::new(16 * MIB).unwrap());
        if !huge { small_pages(&ram); }
        let (table, pagemap) = (Arc::new(FrameTable::new(ram.regions()).unwrap()), Pagemap::open().unwrap());
        let mut comparison = Comparison::new(Arc::clone(&ram), Arc::clone(&table), Pagemap::open().unwrap());
        for (round, (first, count, what)) in steps.into_iter().enumerate() {
            let end = (first + count).min(4096);
            match what {
                0 => (first..end).for_each(|frame| write(&ram, frame)),
                1 => (first..end).for_each(|frame| read(&ram, frame)),
                _ => { ram.release(&pagemap, first, end - first).unwrap(); }
            }
            let runs = held(&methods()[0].1, &ram, 0, 4096);
            for (name, pagemap) in methods() {
                proptest::prop_assert_eq!(held(&pagemap, &ram, 0, 4096), runs.clone(), "{}", name);
            }
            // And the table says what the kernel says, after a pass of either kind; one kind suffices for touches.
            comparison.run(if what == 2 || round % 2 == 0 { Pass::Full } else { Pass::Touched }).unwrap();
            let totals = FrameReader::open(table.fd()).unwrap().totals_from_entries();
            let held = runs.iter().map(|run| run.end - run.start).sum();
            proptest::prop_assert_eq!((totals.private, totals.untiled), (held, 0));
        }
    }
}
