//! What a guest takes, by readings that the tests give.

use super::super::reading::TableSample;
use super::*;

/// Both of one moment.
fn reading(kernel: KernelSample, totals: &Totals) -> Reading {
    let table = TableSample { totals: totals.clone(), pool_frames: totals.shared, ..TableSample::default() };
    Reading { table, kernel, at: kernel.at, span: Duration::ZERO }
}

fn totals(private: u64, age: Option<u64>) -> Totals {
    Totals { frames: 1 << 16, private, checked_age_ms: age, ..Default::default() }
}

#[test]
fn overhead_is_assumed_until_the_table_is_known_to_be_right() {
    let mut figures = Figures::default();
    let resident_bytes = 100 << 20;
    let kernel = KernelSample {
        resident_bytes,
        anonymous_bytes: resident_bytes,
        swapped_bytes: 0,
        page_tables_bytes: 0,
        at: Instant::now(),
    };
    figures.update(reading(kernel, &totals(0, None)));
    assert_eq!(figures.overhead_bytes(), OVERHEAD_BYTES_ASSUMED);
    figures.update(reading(kernel, &totals(92 << 8, Some(9000))));
    figures.update(reading(kernel, &Totals { error_frames_max: 4096, ..totals(92 << 8, Some(10)) }));
    assert_eq!(figures.reserved_bytes(), OVERHEAD_BYTES_ASSUMED);
    for private in [92 << 8, 80 << 8, 94 << 8] {
        figures.update(reading(kernel, &totals(private, Some(2000))));
    }
    assert_eq!((figures.overhead_bytes(), figures.reserved_bytes()), (8 << 20, 9 << 20));
}

#[test]
fn what_comes_between_two_readings_is_no_overhead() {
    let mut figures = Figures::of_engine(Engine::Qemu);
    let kernel = |resident_mib: u64| KernelSample {
        resident_bytes: resident_mib << 20,
        anonymous_bytes: resident_mib << 20,
        swapped_bytes: 0,
        page_tables_bytes: 0,
        at: Instant::now(),
    };
    figures.update(reading(kernel(200), &totals(80 << 8, Some(10))));
    for resident_mib in [260, 320, 380] {
        figures.update(reading(kernel(resident_mib), &totals(80 << 8, Some(900))));
    }
    assert_eq!(figures.overhead_bytes(), 120 << 20);
    figures.update(reading(kernel(382), &totals(250 << 8, Some(10))));
    assert_eq!(figures.overhead_bytes(), 132 << 20);
}

#[test]
fn a_qemu_gets_room_to_grow_and_is_expected_to_be_large() {
    let mut figures = Figures::of_engine(Engine::Qemu);
    assert_eq!((figures.overhead_bytes(), figures.reserved_bytes()), (128 << 20, 128 << 20));
    let kernel = KernelSample {
        resident_bytes: 200 << 20,
        anonymous_bytes: 120 << 20,
        swapped_bytes: 0,
        page_tables_bytes: 0,
        at: Instant::now(),
    };
    figures.update(reading(kernel, &totals(100 << 8, Some(10))));
    assert_eq!((figures.overhead_bytes(), figures.reserved_bytes()), (100 << 20, 116 << 20));
}

#[test]
fn pages_of_images_are_neither_overhead_nor_the_guests_own() {
    let kernel = KernelSample {
        resident_bytes: 100 << 20,
        anonymous_bytes: 60 << 20,
        swapped_bytes: 0,
        page_tables_bytes: 0,
        at: Instant::now(),
    };
    let with_images = Totals { shared: 35 << 8, ..totals(58 << 8, Some(10)) };
    let mut figures = Figures::default();
    figures.update(reading(kernel, &with_images));
    assert_eq!((table_bytes(&with_images), figures.overhead_bytes()), (58 << 20, 7 << 20));
    // A table that claims more of them than the process has of files hides nothing else with it.
    let lie = Totals { shared: 99 << 8, ..with_images };
    figures.update(reading(kernel, &lie));
    assert_eq!(figures.images().pool.bytes_max, 40 << 20);
}

#[test]
fn a_table_holds_no_more_than_its_frames() {
    assert_eq!(table_bytes(&totals(200 << 8, None)), 200 << 20);
    assert_eq!(table_bytes(&totals(u64::MAX, None)), 256 << 20);
}

#[test]
fn this_process_is_resident() {
    let pid = i32::try_from(std::process::id()).unwrap();
    let kernel = KernelSample::take(pid).unwrap();
    assert!(
        kernel.page_tables_bytes > 0
            && kernel.anonymous_bytes > 0
            && kernel.resident_bytes > kernel.anonymous_bytes,
        "{kernel:?}"
    );
    assert!(KernelSample::take(i32::MAX).is_none());
}

/// A second after another, of a `vmm` that has 6 MiB of files of its own and maps images.
fn with_files(start: Instant, second: u64, file_mib: u64, told_mib: u64, error_mib: u64) -> Reading {
    let at = start + Duration::from_secs(second);
    let kernel = KernelSample {
        resident_bytes: (50 + file_mib) << 20,
        anonymous_bytes: 50 << 20,
        swapped_bytes: 0,
        page_tables_bytes: 0,
        at,
    };
    let totals = Totals {
        shared: told_mib << 8,
        shared_error_frames_max: error_mib << 8,
        shared_checked_age_ms: Some(10),
        ..totals(44 << 8, Some(10))
    };
    Reading {
        table: TableSample { totals, pool_frames: 64 << 8, ..Default::default() },
        kernel,
        at,
        span: Duration::ZERO,
    }
}

#[test]
fn pages_that_the_table_does_not_count_yet_are_not_overhead_whichever_sample_is_late() {
    let start = Instant::now();
    let mut figures = Figures::default();
    figures.update(with_files(start, 0, 6, 0, 0));
    figures.update(with_files(start, 1, 6, 0, 0));
    assert_eq!(figures.overhead_bytes(), 12 << 20);
    // The guest maps 32 MiB: the kernel is read after that, the table before, and a second later both are after it.
    figures.update(with_files(start, 2, 38, 0, 1));
    figures.update(with_files(start, 3, 38, 0, 32));
    assert_eq!(figures.overheads.len(), 1, "neither is a reading of overhead");
    figures.update(with_files(start, 4, 38, 32, 1));
    assert_eq!((figures.overhead_bytes(), figures.overheads.len()), (12 << 20, 2));
    // And the table is late: it counts pages that came after the kernel was read.
    figures.update(with_files(start, 5, 38, 64, 1));
    assert_eq!(figures.images().pool.bytes_max, 38 << 20, "no more than the process has of files");
    let late = Reading { span: SPAN_MAX * 2, ..with_files(start, 6, 38, 32, 1) };
    let readings = figures.overheads.len();
    figures.update(late);
    assert_eq!(figures.overheads.len(), readings, "what was read too slowly is of two moments");
}

#[test]
fn a_table_that_never_counts_what_its_process_maps_is_not_trusted_about_it_in_the_end() {
    let start = Instant::now();
    let mut figures = Figures::default();
    for second in 0..59 {
        figures.update(with_files(start, second, 60, 0, 64));
        assert_eq!(figures.images().all.bytes_max, 60 << 20, "it may be so: after {second} s");
        let asks = figures.wants_comparison(start + Duration::from_secs(second));
        assert_eq!(asks, second >= 3, "after {second} s");
    }
    figures.update(with_files(start, 60, 60, 0, 64));
    assert_eq!(figures.images(), ImagePages::default(), "all of it is the process's own");
    figures.update(with_files(start, 61, 60, 54, 1));
    assert_eq!(figures.images().all.known_bytes, 54 << 20);
    assert!(!figures.wants_comparison(start + Duration::from_secs(61)));
}
