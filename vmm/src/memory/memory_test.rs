use super::*;
use devices::virtio::balloon::{BalloonBackend, FrameRun};
use protocol::frames::{FrameReader, FrameTable, RegionKind, State};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// One full pass.
fn reconcile(ram: &Arc<Ram>, table: &Arc<FrameTable>) -> Reconciled {
    let mut comparison = Comparison::new(Arc::clone(ram), Arc::clone(table), Pagemap::open().unwrap());
    comparison.run(Pass::Full).unwrap()
}

fn guest(bytes: u64) -> (Arc<Ram>, Arc<FrameTable>, Pagemap) {
    let ram = Arc::new(Ram::new(bytes).unwrap());
    let table = Arc::new(FrameTable::new(ram.regions()).unwrap());
    (ram, table, Pagemap::open().unwrap())
}

/// Writes one byte into each frame of a run, as a guest's first touch does.
fn touch(ram: &Ram, first: u64, count: u64) {
    use vm_memory::{Bytes, GuestAddress};
    for frame in first..first + count {
        ram.guest().write_obj(0xa5u8, GuestAddress(frame * FRAME_BYTES)).unwrap();
    }
}

#[test]
fn ram_is_aligned_and_has_a_hole_below_4_gib() {
    let ram = Ram::new(4 << 30).unwrap();
    assert_eq!(ram.regions(), [Region::ram(0, 786_432), Region::ram(1 << 20, 262_144)]);
    for (_, host) in ram.slots() {
        assert_eq!(host % BLOCK_BYTES, 0);
    }
    assert!(ram.host(786_431, 2).is_none(), "a run must not cross the hole");
}

#[test]
fn release_returns_the_bytes_that_were_held_and_no_more() {
    let (ram, _, pagemap) = guest(64 * MIB);
    touch(&ram, 0, 1024);
    let host = ram.host(0, 2048).unwrap();
    let held = pagemap.count_held(host, 2048).unwrap();
    assert!(held >= 1024, "{held}");
    assert_eq!(ram.release(&pagemap, 0, 2048).unwrap().bytes, held * FRAME_BYTES);
    assert_eq!(pagemap.count_held(host, 2048).unwrap(), 0);
    assert_eq!(ram.release(&pagemap, 0, 2048).unwrap().bytes, 0, "a second release frees nothing");
}

#[test]
fn released_memory_reads_zero_and_neighbours_keep_their_bytes() {
    use vm_memory::{Bytes, GuestAddress};
    let (ram, _, pagemap) = guest(16 * MIB);
    touch(&ram, 0, 1024);
    ram.release(&pagemap, 10, 3).unwrap();
    for frame in 0..1024 {
        let byte: u8 = ram.guest().read_obj(GuestAddress(frame * FRAME_BYTES)).unwrap();
        assert_eq!(byte, if (10..13).contains(&frame) { 0 } else { 0xa5 }, "frame {frame}");
    }
}

#[test]
fn what_is_no_ram_is_not_released() {
    let (ram, _, pagemap) = guest(16 * MIB);
    for (first, count) in [(4096, 1), (4095, 2), (u64::MAX, 1), (0, u64::MAX)] {
        assert!(ram.release(&pagemap, first, count).is_err(), "{first} {count}");
    }
}

#[test]
fn reconciling_finds_first_touch_and_what_went_away() {
    let (ram, table, pagemap) = guest(64 * MIB);
    let reader = FrameReader::open(table.fd()).unwrap();
    touch(&ram, 600, 100);
    reconcile(&ram, &table);
    let totals = reader.totals();
    let host = ram.host(0, 16384).unwrap();
    assert_eq!(totals.private, pagemap.count_held(host, 16384).unwrap(), "exact: nobody touches meanwhile");
    assert!(totals.private >= 100 && totals.untiled == 0, "{totals:?}");
    assert!(totals.reconciled_age_ms.is_some());
    ram.release(&pagemap, 0, 16384).unwrap();
    reconcile(&ram, &table);
    assert_eq!((reader.totals().private, reader.totals().untouched), (0, 16384));
}

#[test]
fn the_balloon_takes_frames_and_gives_them_back_and_the_table_tiles() {
    let (ram, table, _) = guest(64 * MIB);
    let reader = FrameReader::open(table.fd()).unwrap();
    let mut balloon = RamBalloon::new(Arc::clone(&ram), Arc::clone(&table)).unwrap();
    touch(&ram, 0, 2048);
    reconcile(&ram, &table);
    let run = FrameRun { first: 512, count: 1024 };
    let outcome = balloon.inflate(&[run]);
    assert_eq!((outcome.changed_frames, outcome.freed_bytes), (1024, 1024 * FRAME_BYTES));
    assert_eq!(balloon.inflate(&[run]).repeated_frames, 1024, "one page twice is counted and harmless");
    let totals = reader.totals();
    assert_eq!((totals.ballooned, totals.untiled), (1024, 0));
    // A guest that uses a ballooned frame is found out.
    touch(&ram, 520, 1);
    reconcile(&ram, &table);
    assert!(reader.totals().refaults >= 1);
    // A deflate of what was never given changes nothing.
    assert_eq!(balloon.deflate(&[FrameRun { first: 0, count: 512 }]).changed_frames, 0);
    balloon.deflate(&[run]);
    let totals = reader.totals_from_entries();
    assert_eq!((totals.ballooned, totals.untiled), (0, 0));
}

#[test]
fn a_touch_beside_ballooned_frames_brings_none_of_them_back() {
    let (ram, table, pagemap) = guest(16 * MIB);
    let mut balloon = RamBalloon::new(Arc::clone(&ram), Arc::clone(&table)).unwrap();
    touch(&ram, 0, 1024);
    // All of two blocks but one frame each; the kernel holds nothing of the first block then.
    balloon.inflate(&[FrameRun { first: 1, count: 511 }, FrameRun { first: 513, count: 511 }]);
    ram.release(&pagemap, 0, 1).unwrap();
    touch(&ram, 0, 1);
    let host = ram.host(0, 1024).unwrap();
    assert_eq!(pagemap.count_held(host, 512).unwrap(), 1, "one touch, one frame");
    reconcile(&ram, &table);
    let total = |state| table.total(RegionKind::Ram, state);
    assert_eq!((total(State::Ballooned), total(State::Private)), (1022, 2));
    // Once the balloon is empty, huge pages may come again.
    balloon.deflate(&[FrameRun { first: 0, count: 1024 }]);
    assert!((0..2).all(|block| table.frames_in_block(block * 512, State::Ballooned) == 0));
    assert_eq!(ram.small_blocks.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(FrameReader::open(table.fd()).unwrap().totals().untiled, 0);
}

#[test]
fn a_driver_that_is_reset_has_nothing_in_the_balloon() {
    let (ram, table, _) = guest(16 * MIB);
    let mut balloon = RamBalloon::new(Arc::clone(&ram), Arc::clone(&table)).unwrap();
    touch(&ram, 0, 1024);
    balloon.inflate(&[FrameRun { first: 100, count: 300 }]);
    assert_eq!(balloon.ballooned_frames(), 300);
    // A frame that the guest uses all the same is in the balloon no more.
    touch(&ram, 100, 1);
    reconcile(&ram, &table);
    assert_eq!(balloon.ballooned_frames(), 299);
    assert_eq!(balloon.driver_reset().changed_frames, 299);
    assert_eq!(balloon.ballooned_frames(), 0);
    assert_eq!(FrameReader::open(table.fd()).unwrap().totals().untiled, 0);
}
