//! The cost that a memory cgroup adds to a page fault on this kernel, and the cost of a scan that finds the touched
//! page.

use super::{cgroup, median};
use protocol::frames::FrameTable;
use std::sync::Arc;
use std::time::Instant;
use vmm::memory::{Comparison, Pagemap, Pass, Ram};

const BYTES: u64 = 256 << 20;
const PAGES: u64 = BYTES / 4096;
const ROUNDS: usize = 11;

pub fn run() {
    println!("First touch of a 4 KiB page                       ns/page   spread");
    let row = |name: &str, (nanos, spread): (f64, f64)| println!("  {name:<46} {nanos:>8.1} {spread:>8.1}");
    match cgroup::Pair::open() {
        Ok(pair) => {
            let (mut without, mut with) = (vec![], vec![]);
            for _ in 0..ROUNDS {
                for (figures, enter) in [(&mut without, true), (&mut with, false)] {
                    if let Err(error) = if enter { pair.enter_root() } else { pair.enter_own() } {
                        return println!("  SKIPPED the memory cgroup: it cannot be changed: {error}");
                    }
                    figures.push(fault());
                }
            }
            let added = with.iter().zip(&without).map(|(with, without)| with - without).collect();
            row("fault, no memory cgroup (the root's)", median(without));
            row("fault, in a memory cgroup", median(with));
            row("memory cgroup: charge and uncharge", median(added));
        }
        Err(why) => println!("  SKIPPED the memory cgroup: {why}"),
    }
    row("frame table: found by a scan, 4 KiB pages", median((0..ROUNDS).map(|_| found(false)).collect()));
    row("frame table: found by a scan, 2 MiB pages", median((0..ROUNDS).map(|_| found(true)).collect()));
}

/// Nanoseconds per page to fault memory in and to release it.
fn fault() -> f64 {
    let ram = small(false);
    let started = Instant::now();
    touch(&ram);
    drop(ram);
    started.elapsed().as_nanos() as f64 / PAGES as f64
}

/// Nanoseconds per page of a pass that finds all pages touched.
fn found(huge: bool) -> f64 {
    let ram = Arc::new(small(huge));
    touch(&ram);
    let table = Arc::new(FrameTable::new(ram.regions()).expect("a table"));
    let mut comparison = Comparison::new(ram, table, Pagemap::open().expect("a pagemap"));
    let started = Instant::now();
    let done = comparison.run(Pass::Touched).expect("a pass");
    assert_eq!(done.mended_frames, PAGES);
    started.elapsed().as_nanos() as f64 / PAGES as f64
}

fn small(huge: bool) -> Ram {
    let ram = Ram::new(BYTES).expect("memory");
    super::scans::advise(&ram, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
    ram
}

pub fn touch(ram: &Ram) {
    for (region, host) in ram.slots() {
        for frame in 0..region.count {
            // SAFETY: inside the RAM that was just made, which no other code uses.
            unsafe {
                std::ptr::with_exposed_provenance_mut::<u8>(
                    usize::try_from(host + frame * 4096).expect("an address"),
                )
                .write_volatile(1)
            };
        }
    }
}
