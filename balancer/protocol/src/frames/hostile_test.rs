//! Tables that were made to harm the balancer, and writers that die or lie.

use super::*;
use rustix::fs::{MemfdFlags, SealFlags};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;

const FRAMES: u64 = 1024;

/// A memfd with these bytes, sealed like this.
fn memfd(bytes: &[u8], length: u64, seals: SealFlags) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create(c"hostile", flags).unwrap());
    file.set_len(length).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    rustix::fs::fcntl_add_seals(&file, seals).unwrap();
    file
}

fn header() -> Vec<u8> {
    let table = FrameTable::new(&[Region::ram(0, FRAMES)]).unwrap();
    let mut bytes = vec![0; 4096];
    File::from(table.fd().try_clone_to_owned().unwrap()).read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn open(bytes: &[u8], length: u64) -> Result<FrameReader, LayoutError> {
    FrameReader::open(memfd(bytes, length, SealFlags::SHRINK).as_fd())
}

/// The header with one number replaced.
fn with(offset: usize, value: u64, bytes: usize) -> Vec<u8> {
    let mut header = header();
    header[offset..offset + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    header
}

fn length() -> u64 {
    layout::table_bytes(FRAMES).unwrap() as u64
}

#[test]
fn a_table_is_taken_as_it_is() {
    assert_eq!(open(&header(), length()).unwrap().ram_bytes(), FRAMES * 4096);
}

#[test]
fn another_version_is_refused_with_both_versions() {
    let error = open(&with(8, u64::from(VERSION) + 1, 4), length()).unwrap_err();
    assert!(matches!(error, LayoutError::Version { found } if found == VERSION + 1), "{error}");
    let text = error.to_string();
    assert!(text.contains(&(VERSION + 1).to_string()) && text.contains(&VERSION.to_string()), "{text}");
    assert!(matches!(open(&with(8, 1, 4), length()), Err(LayoutError::Version { found: 1 })));
}

#[test]
fn a_truncated_table_is_refused_with_both_lengths() {
    for short in [0, 4095, 4096, 4097, length() - 1] {
        let bytes = header();
        let bytes = &bytes[..bytes.len().min(usize::try_from(short).unwrap())];
        let error = open(bytes, short).unwrap_err();
        assert!(matches!(error, LayoutError::Truncated { found, .. } if found == short), "{short}: {error}");
    }
}

#[test]
fn an_unsealed_table_is_refused() {
    for seals in [SealFlags::empty(), SealFlags::GROW, SealFlags::SEAL] {
        let file = memfd(&header(), length(), seals);
        assert!(matches!(FrameReader::open(file.as_fd()), Err(LayoutError::Unsealed)), "{seals:?}");
    }
    for path in ["/dev/null", "/dev/zero", "/proc/self/exe", "/"] {
        let file = File::open(path).unwrap();
        assert!(matches!(FrameReader::open(file.as_fd()), Err(LayoutError::Unsealed)), "{path}");
    }
}

#[test]
fn what_is_something_else_is_refused() {
    assert!(matches!(open(&[], length()), Err(LayoutError::Magic(0))));
    assert!(matches!(open(&with(0, 1, 8), length()), Err(LayoutError::Magic(1))));
}

#[test]
fn absurd_counts_are_refused() {
    // Region count, then first, count and kind of the first region.
    for (offset, value, bytes) in [
        (12, 0, 4),
        (12, 2, 4),
        (12, 18, 4),
        (12, 19, 4),
        (12, u64::from(u32::MAX), 4),
        (16, 1, 8),
        (16, u64::MAX - 511, 8),
        (24, 0, 8),
        (24, 1023, 8),
        (24, (1 << 30) + 512, 8),
        (24, u64::MAX - 511, 8),
        (24, u64::MAX, 8),
        (32, 2, 4),
        (32, u64::from(u32::MAX), 4),
    ] {
        let error = open(&with(offset, value, bytes), length()).unwrap_err();
        assert!(matches!(error, LayoutError::Regions(_)), "{offset} {value}: {error}");
    }
    // Large, but possible: then the file must be as long.
    let error = open(&with(24, 1 << 30, 8), length()).unwrap_err();
    assert!(matches!(error, LayoutError::Truncated { .. }), "{error}");
}

#[test]
fn regions_that_change_after_the_opening_change_nothing() {
    let table = FrameTable::new(&[Region::ram(0, FRAMES)]).unwrap();
    let reader = FrameReader::open(table.fd()).unwrap();
    let header = table.mapping_for_test().header();
    header.region_count.store(u32::MAX, Relaxed);
    header.regions[0].store(&Region::ram(1, u64::MAX));
    assert_eq!(reader.regions(), [Region::ram(0, FRAMES)]);
    assert_eq!(reader.totals_from_entries().untouched, FRAMES);
}

/// Every byte behind the first line of the header is noise: each figure stays within its bounds, and nothing hangs.
#[test]
fn noise_is_read_without_harm() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..20 {
        let table = FrameTable::new(&[Region::ram(0, FRAMES)]).unwrap();
        let reader = FrameReader::open(table.fd()).unwrap();
        let file = File::from(table.fd().try_clone_to_owned().unwrap());
        let noise: Vec<u8> = (0..length() - 16)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        file.write_all_at(&noise, 16).unwrap();
        for totals in [reader.totals(), reader.totals_from_blocks(), reader.totals_from_entries()] {
            for state in STATES {
                assert!(totals.of(state) <= FRAMES, "round {round}: {totals:?}");
            }
            assert!(totals.error_frames_max <= FRAMES);
        }
        assert_ne!(reader.totals().untiled, 0, "round {round}: nonsense is told as such");
        let mut frames = 0;
        reader.for_each_run(|run| frames += run.count);
        assert_eq!(frames, FRAMES);
        assert!(reader.private_by_owner().values().sum::<u64>() <= FRAMES);
    }
}

/// A writer that died in the middle of an operation.
#[test]
fn a_dead_writer_holds_nobody_up() {
    let table = FrameTable::new(&[Region::ram(0, FRAMES)]).unwrap();
    let reader = FrameReader::open(table.fd()).unwrap();
    table.apply(0, 100, Transition::Touch);
    table.mapping_for_test().header().begun.0.fetch_add(1, Relaxed);
    assert_eq!((reader.totals().private, reader.totals().torn), (100, false), "what ended is known");
    let counted = reader.totals_from_entries();
    assert_eq!((counted.private, counted.torn), (100, true), "what did not end makes counts uncertain");
    // One that died while it folded a block: the others go on, frame by frame.
    let head = table.mapping_for_test().block(0).head;
    head.store(super::head::Head::from_bits(head.load(Relaxed)).with_folder().bits(), Relaxed);
    assert_eq!(table.apply(0, 512, Transition::Inflate).changed, 512);
    assert_eq!(reader.totals_from_entries().ballooned, 512);
}

/// A writer that changes entries behind the back of its own books.
#[test]
fn books_that_do_not_fit_the_entries_are_found() {
    let table = FrameTable::new(&[Region::ram(0, FRAMES)]).unwrap();
    let reader = FrameReader::open(table.fd()).unwrap();
    table.apply(0, 512, Transition::Touch);
    let private = super::entry::Entry::new(State::Private, 1, 1, false);
    for frame in 512..522 {
        let block = table.mapping_for_test().block(1);
        block.head.store(
            super::head::Head::new(
                super::entry::Entry::new(State::Untouched, 0, 1, false),
                0,
                super::head::Mode::Mixed,
            )
            .bits(),
            Relaxed,
        );
        block.entries[frame - 512].store(private.bits(), Relaxed);
    }
    assert_eq!((reader.totals().untiled, reader.totals().private), (0, 512), "its books alone look fine");
    assert_eq!(reader.totals_from_blocks().untiled, 0, "and its summaries");
    let counted = reader.totals_from_entries();
    assert_eq!((counted.untiled, counted.private), (10, 522));
    table.mapping_for_test().block(0).counts[0].store(500, Relaxed);
    assert_eq!(reader.totals_from_blocks().untiled, 12);
}

/// A writer that puts states where they cannot be: RAM that is shared, an image that is private or in the balloon.
#[test]
fn a_state_that_is_impossible_in_its_region_is_nonsense_that_is_survived() {
    use super::entry::Entry;
    use super::head::{Head, Mode};
    let regions = [Region::ram(0, 1024), Region::image(1 << 20, 1024)];
    for (block, state) in [(0, State::Shared), (2, State::Private), (2, State::Ballooned)] {
        let table = FrameTable::new(&regions).unwrap();
        let reader = FrameReader::open(table.fd()).unwrap();
        let first = if block == 0 { 0 } else { 1 << 20 };
        let entry = Entry::new(state, 1, 1, false);
        // A whole block, and single frames of the next.
        let cells = table.mapping_for_test();
        cells.block(block).head.store(Head::new(entry, 0, Mode::Uniform).bits(), Relaxed);
        let untouched = Entry::new(State::Untouched, 0, 1, false);
        cells.block(block + 1).head.store(Head::new(untouched, 0, Mode::Mixed).bits(), Relaxed);
        cells.block(block + 1).entries[5].store(entry.bits(), Relaxed);
        let counted = reader.totals_from_entries();
        assert_eq!((counted.of(state), counted.untiled), (0, 513), "{state:?}");
        assert_eq!(counted.untouched, 2048 - 513);
        let mut runs = vec![];
        reader.for_each_run_in(first, |run| runs.push((run.first - first, run.count, run.frame.is_some())));
        assert_eq!(runs, [(0, 512, false), (512, 5, true), (517, 1, false), (518, 506, true)]);
        assert!(reader.private_by_owner().is_empty());
        // Books that claim it: the totals do not tile, in that region and altogether.
        let region = usize::from(block != 0);
        cells.header().flows[region][0][state as usize].store(7, Relaxed);
        let totals = reader.totals();
        assert_eq!((totals.of(state), totals.untiled), (0, 7), "{state:?}");
        let by_region: Vec<u64> = reader.totals_by_region().iter().map(|(_, t)| t.untiled).collect();
        assert_eq!(by_region[region], 7);
        assert_eq!(by_region[1 - region], 0);
    }
}
