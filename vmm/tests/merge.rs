//! Guest RAM that the kernel merges (KSM): the frame table stays true, and released frames leave KSM. KSM belongs to
//! the host and the total to the process, so this test needs a process of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/ksm.rs"]
mod ksm;

use protocol::frames::{FrameReader, FrameTable, RegionKind, State};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};
use vmm::memory::{Comparison, KernelTotal, Pagemap, Pass, Ram};
use wait::Counted;

const FRAMES: u64 = 16384;
const WRITTEN: u64 = 8192;

/// Each content is in two frames, so that every written page has an equal one; pages of zeros have equal ones as well.
fn content(frame: u64) -> u64 {
    frame % (WRITTEN / 2)
}

fn wait(what: &str, until: impl Fn() -> bool) {
    let look = || Ok((until(), std::fs::read_to_string("/proc/self/ksm_stat").ok()));
    wait::until(what, &Counted(merging), look, |(holds, _)| *holds).unwrap();
}

fn merging() -> u64 {
    ksm::own("ksm_merging_pages").unwrap()
}

#[test]
fn merged_frames_stay_private_in_the_table_and_are_released_like_others() {
    let _ksm = match ksm::Ksm::start() {
        Ok(ksm) => ksm,
        Err(why) => {
            skip::skip!(Ksm, "{why}");
            return;
        }
    };
    let ram = Arc::new(Ram::new(FRAMES * 4096).unwrap());
    let table = Arc::new(FrameTable::new(ram.regions()).unwrap());
    let reader = FrameReader::open(table.fd()).unwrap();
    let (pagemap, total) = (Pagemap::open().unwrap(), KernelTotal::open().unwrap());
    let slack = total.inexact_frames();
    let mut comparison = Comparison::new(Arc::clone(&ram), Arc::clone(&table), Pagemap::open().unwrap());
    let held = |ram: &Ram| -> u64 {
        ram.slots().map(|(region, host)| pagemap.count_held(host, region.count).unwrap()).sum()
    };
    if let Err(error) = ram.merge() {
        skip::skip!(Ksm, "{error}");
        return;
    }
    for frame in 0..WRITTEN {
        ram.guest().write_obj(content(frame) + 1, GuestAddress(frame * 4096)).unwrap();
    }
    comparison.run(Pass::Full).unwrap();
    let (before, anonymous) = (held(&ram), total.frames().unwrap());
    assert_eq!((table.total(RegionKind::Ram, State::Private), before), (WRITTEN, WRITTEN));

    wait("pages are merged", || merging() >= WRITTEN * 95 / 100);
    // Merged or not, a page is present, anonymous and counted. So a true table stays true.
    assert_eq!(held(&ram), before);
    assert!(total.frames().unwrap().abs_diff(anonymous) <= slack, "{anonymous} {}", total.frames().unwrap());
    assert_eq!(comparison.run(Pass::Full).unwrap().mended_frames, 0, "nothing to mend");
    // A write copies one page out of KSM, and nothing else changes.
    ram.guest().write_obj(u64::MAX, GuestAddress(8)).unwrap();
    assert_eq!(held(&ram), before);

    // Released frames leave KSM; the equal page of another frame keeps its content.
    let released = ram.release(&pagemap, 0, WRITTEN / 2).unwrap();
    assert_eq!(released.bytes, WRITTEN / 2 * 4096);
    table.set(0, WRITTEN / 2, State::Ballooned);
    wait("released frames leave KSM with its next scan", || merging() <= WRITTEN / 2);
    assert_eq!(held(&ram), before - WRITTEN / 2);
    let left = total.frames().unwrap();
    assert!(left.abs_diff(anonymous - WRITTEN / 2) <= slack, "{anonymous} {left}");
    for frame in WRITTEN / 2..WRITTEN {
        let found: u64 = ram.guest().read_obj(GuestAddress(frame * 4096)).unwrap();
        assert_eq!(found, content(frame) + 1, "frame {frame}");
    }
    comparison.run(Pass::Full).unwrap();
    let totals = reader.totals_from_entries();
    assert_eq!((totals.private, totals.untiled, totals.torn), (WRITTEN / 2, 0, false), "{totals:?}");
}
