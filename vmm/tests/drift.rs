//! The kernel's total as a measure of guest RAM. It is the total of the process, so this test needs a process of its
//! own.

#![allow(clippy::unwrap_used, reason = "tests")]

use protocol::frames::{ErrorSource, FrameReader, FrameTable, RegionKind, State};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};
use vmm::disk_cache::DiskCache;
use vmm::memory::{Drift, KernelTotal, Pagemap, Ram};
use vmm::reconciler::Reconciler;
use wait::Activity;

const FRAMES: u64 = 16384;

fn touch(ram: &Ram, first: u64, count: u64) {
    for frame in first..first + count {
        ram.guest().write_obj(1u8, GuestAddress(frame * 4096)).unwrap();
    }
}

/// One after the other: both read the same total.
#[test]
fn the_total_of_the_process_follows_what_a_guest_touches() {
    the_total_follows_what_is_written_and_released();
    an_unchanged_guest_is_not_scanned_and_a_touched_one_is();
}

fn the_total_follows_what_is_written_and_released() {
    let ram = Ram::new(FRAMES * 4096).unwrap();
    let (total, drift, pagemap) =
        (KernelTotal::open().unwrap(), Drift::open().unwrap(), Pagemap::open().unwrap());
    let slack = drift.inexact_frames();
    let (before, mark) = (total.frames().unwrap(), drift.mark(&ram).unwrap());
    for frame in 0..FRAMES {
        let byte: u8 = ram.guest().read_obj(GuestAddress(frame * 4096)).unwrap();
        assert_eq!(byte, 0);
    }
    let read = total.frames().unwrap();
    assert!(read.abs_diff(before) <= slack, "reading takes no memory: {before} {read}");
    touch(&ram, 0, FRAMES);
    let written = total.frames().unwrap();
    assert!(written.abs_diff(read + FRAMES) <= slack, "{read} {written}");
    ram.release(&pagemap, 100, 8000).unwrap();
    let released = total.frames().unwrap();
    assert!(released.abs_diff(written - 8000) <= slack, "{written} {released}");
    let touched = drift.since(&ram, mark).unwrap().touched;
    assert!(touched.unsigned_abs().abs_diff(FRAMES) <= slack, "a release hides no touch: {touched}");
}

fn an_unchanged_guest_is_not_scanned_and_a_touched_one_is() {
    let ram = Arc::new(Ram::new(FRAMES * 4096).unwrap());
    let table = Arc::new(FrameTable::new(ram.regions()).unwrap());
    let reader = FrameReader::open(table.fd()).unwrap();
    touch(&ram, 0, 1024);
    assert_eq!(reader.totals().error_source, ErrorSource::Never);
    let reconciler =
        Reconciler::start(Arc::clone(&ram), Arc::default(), Arc::clone(&table), DiskCache::default())
            .unwrap();
    let own = Activity::of(std::process::id());
    let wait = |what: &str, until: &dyn Fn() -> bool| {
        wait::until(what, &own, || Ok((until(), reader.totals())), |(holds, _)| *holds).unwrap();
    };
    wait("a first pass", &|| reader.totals().reconciled_age_ms.is_some());
    let totals = reader.totals();
    assert!(totals.private >= 1024 && totals.error_source == ErrorSource::KernelTotal, "{totals:?}");

    // Nothing is touched: the thread reads the total again and again, and does not scan the pages.
    let age = totals.reconciled_age_ms.unwrap();
    wait("later readings of the total", &|| {
        reader.totals().reconciled_age_ms.unwrap() > age + 3000
            && reader.totals().checked_age_ms.unwrap() < 2500
    });
    let totals = reader.totals();
    assert!(totals.error_frames_max <= 32 + KernelTotal::open().unwrap().inexact_frames(), "{totals:?}");

    // A touch is within the published error before a pass finds it, and a pass finds it soon.
    touch(&ram, 8192, 2000);
    wait("a pass that finds it", &|| {
        let (before, truth) = (reader.totals(), held(&ram));
        let after = reader.totals();
        // Only a figure that was published after the touch, and not renewed meanwhile, has to be right.
        if before.reconciled_age_ms <= after.reconciled_age_ms && before.error_frames_max >= 2000 {
            assert!(truth.abs_diff(before.private) <= before.error_frames_max, "{truth} {before:?}");
        }
        after.private == truth
    });

    // On request even an unchanged guest is compared.
    let _ = reconciler.take();
    reconciler.request();
    wait("an answer", &|| reconciler.take().pass.is_some());
    assert_eq!(table.total(RegionKind::Ram, State::Private), held(&ram));
    let totals = reader.totals_from_entries();
    assert_eq!((totals.untiled, totals.torn), (0, false));
}

fn held(ram: &Ram) -> u64 {
    let pagemap = Pagemap::open().unwrap();
    ram.slots().map(|(region, host)| pagemap.count_held(host, region.count).unwrap()).sum()
}
