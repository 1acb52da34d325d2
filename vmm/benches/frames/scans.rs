//! The cost of scans per GiB of guest RAM, by method.

use super::{faults::touch, median};
use protocol::frames::FrameTable;
use std::sync::Arc;
use std::time::Instant;
use vmm::memory::{Comparison, Drift, Method, Pagemap, Pass, Ram};

const GIB: u64 = 1 << 30;
const ROUNDS: usize = 11;

pub fn run() {
    println!("Looking at 1 GiB of guest RAM, us         4 KiB pages    2 MiB pages");
    let columns: Vec<Vec<(String, f64)>> = [libc::MADV_NOHUGEPAGE, libc::MADV_HUGEPAGE].map(column).into();
    for ((name, small), (_, huge)) in columns[0].iter().zip(&columns[1]) {
        println!("  {name:<38} {small:>12.1} {huge:>14.1}");
    }
    println!("  memory cgroup: reading its charge is O(1); it does not know pages.");
}

fn column(advice: libc::c_int) -> Vec<(String, f64)> {
    let ram = Arc::new(Ram::new(GIB).expect("memory"));
    advise(&ram, advice);
    touch(&ram);
    let table = Arc::new(FrameTable::new(ram.regions()).expect("a table"));
    let host = ram.slots().next().expect("a region").1;
    let mut rows = vec![];
    for (name, method) in [("PAGEMAP_SCAN", Method::Scan), ("/proc/self/pagemap", Method::Read)] {
        let Ok(pagemap) = Pagemap::with_method(method) else {
            println!("  SKIPPED {name}: this kernel does not have it");
            continue;
        };
        let count =
            || time(|| assert_eq!(pagemap.count_held(host, GIB / 4096).expect("an answer"), GIB / 4096));
        rows.push((format!("held runs, {name}"), median((0..ROUNDS).map(|_| count()).collect()).0));
        let map = Pagemap::with_method(method).expect("as above");
        let mut comparison = Comparison::new(Arc::clone(&ram), Arc::clone(&table), map);
        comparison.run(Pass::Full).expect("a pass");
        let mut pass = |pass| median((0..ROUNDS).map(|_| time(|| drop(comparison.run(pass)))).collect()).0;
        rows.push((format!("full pass, {name}"), pass(Pass::Full)));
        rows.push((format!("pass for touches, {name}"), pass(Pass::Touched)));
    }
    let drift = Drift::open().expect("the kernel's total");
    let look = || time(|| drop(drift.mark(&ram)));
    rows.push((
        "the kernel's total, before any pass".into(),
        median((0..ROUNDS).map(|_| look()).collect()).0,
    ));
    rows.push(("smaps_rollup, for comparison".into(), median((0..ROUNDS).map(|_| time(rollup)).collect()).0));
    rows
}

fn rollup() {
    assert!(std::fs::read_to_string("/proc/self/smaps_rollup").is_ok_and(|text| text.contains("Rss:")));
}

fn time(mut work: impl FnMut()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_nanos() as f64 / 1000.0
}

/// Advice on all RAM.
pub fn advise(ram: &Ram, advice: libc::c_int) {
    for (region, host) in ram.slots() {
        let address = std::ptr::with_exposed_provenance_mut(usize::try_from(host).expect("an address"));
        // SAFETY: advice on the RAM that the caller owns.
        unsafe { libc::madvise(address, usize::try_from(region.count * 4096).expect("a length"), advice) };
    }
}
