//! Bytes that the table takes per GiB of guest RAM.

use protocol::frames::{FrameTable, Region, Transition};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

const GIB_FRAMES: u64 = 1 << 18;
/// `struct page` has one word for its memory cgroup.
const CGROUP_BYTES_PER_PAGE: u64 = 8;

pub fn run() {
    println!("Storage per GiB of guest RAM          KiB  bytes/frame");
    let row = |name: &str, bytes: u64| {
        println!("  {name:<32} {:>6} {:>12.3}", bytes / 1024, bytes as f64 / GIB_FRAMES as f64);
    };
    let table = FrameTable::new(&[Region::ram(0, GIB_FRAMES)]).expect("a table");
    let file = File::from(table.fd().as_fd().try_clone_to_owned().expect("a descriptor"));
    let taken = || file.metadata().expect("a memfd").blocks() * 512;
    row("untouched", taken());
    table.apply(0, GIB_FRAMES, Transition::Touch);
    row("touched by blocks", taken());
    table.apply(0, GIB_FRAMES / 2, Transition::Inflate);
    for frame in (0..GIB_FRAMES / 8).step_by(2) {
        table.apply(frame, 1, Transition::Deflate);
    }
    row("an eighth of the blocks mixed", taken());
    for frame in (0..GIB_FRAMES).step_by(2) {
        table.apply(frame, 1, Transition::Report);
        table.apply(frame, 1, Transition::Deflate);
    }
    row("every block mixed", taken());
    row("at most", file.metadata().expect("a memfd").len());
    row("memory cgroup", CGROUP_BYTES_PER_PAGE * GIB_FRAMES);
}
