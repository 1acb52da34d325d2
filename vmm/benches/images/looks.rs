//! The cost of scans per GiB of image: which pages a guest has mapped, and which are resident.

use super::{MIB, file, image, median, time, touch};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::FrameTable;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use vmm::memory::{Comparison, Images, Method, Pagemap, Pass, Ram};

const IMAGE_BYTES: u64 = 256 * MIB;
const PER_GIB: f64 = 4.0;
const ROUNDS: usize = 21;
/// Number of the system call, the same on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// Number of resident pages of a file; `None` if the kernel does not have this call.
type Look = fn(&File) -> Option<u64>;

pub fn run() {
    println!("Looking at images, us of CPU per GiB        all mapped   one page of 64 read");
    let file = file(IMAGE_BYTES);
    let columns: [Vec<(String, f64)>; 2] = [1, 64].map(|step| mapped(&file, step));
    for ((name, all), (_, some)) in columns[0].iter().zip(&columns[1]) {
        println!("  {name:<40} {all:>11.1} {some:>22.1}");
    }
    let rows: [(&str, Look); 2] = [("residency, cachestat", cachestat), ("residency, mincore", mincore)];
    for (name, look) in rows {
        match look(&file) {
            Some(pages) => assert_eq!(pages, IMAGE_BYTES / FRAME_BYTES, "{name}"),
            None => {
                println!("  SKIPPED {name}: this kernel does not have it");
                continue;
            }
        }
        let figure = median((0..ROUNDS).map(|_| time(|| assert!(look(&file).is_some()))).collect());
        println!("  {name:<40} {:>11.1}", figure * PER_GIB);
    }
}

/// Scans an image after every `step`-th page was read; the kernel maps some pages around each.
fn mapped(file: &File, step: u64) -> Vec<(String, f64)> {
    let ram = Arc::new(Ram::new(2 * MIB).expect("memory"));
    let images = Arc::new(Images::map(vec![image(file)], ram.end()).expect("a mapping"));
    let (region, host) = images.slots().next().expect("an image");
    let regions: Vec<_> = ram.slots().chain(images.slots()).map(|(region, _)| region).collect();
    let table = Arc::new(FrameTable::new(&regions).expect("a table"));
    for page in (0..region.count).step_by(usize::try_from(step).expect("a step")) {
        touch(host + page * FRAME_BYTES, FRAME_BYTES);
    }
    let mut rows = vec![];
    for (name, method) in [("PAGEMAP_SCAN", Method::Scan), ("/proc/self/pagemap", Method::Read)] {
        let Ok(pagemap) = Pagemap::with_method(method) else {
            println!("  SKIPPED {name}: this kernel does not have it");
            continue;
        };
        let look = || time(|| pagemap.file_runs(host, region.count, |_| {}).expect("an answer"));
        rows.push((format!("mapped runs, {name}"), median((0..ROUNDS).map(|_| look()).collect()) * PER_GIB));
        let map = Pagemap::with_method(method).expect("as above");
        let mut comparison =
            Comparison::new(Arc::clone(&ram), Arc::clone(&table), map).with_images(Arc::clone(&images));
        comparison.run(Pass::Full).expect("a pass");
        let mut pass = || time(|| drop(comparison.run(Pass::Full)));
        rows.push((format!("full pass, {name}"), median((0..ROUNDS).map(|_| pass()).collect()) * PER_GIB));
    }
    rows
}

fn cachestat(file: &File) -> Option<u64> {
    let (range, mut stat) = ([0u64; 2], [0u64; 5]);
    // SAFETY: `struct cachestat_range` is two words and `struct cachestat` five, of which the kernel fills the second.
    let result = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range.as_ptr(), stat.as_mut_ptr(), 0 as libc::c_uint)
    };
    (result == 0).then_some(stat[0])
}

fn mincore(file: &File) -> Option<u64> {
    let length = usize::try_from(IMAGE_BYTES).expect("a length");
    // SAFETY: a new mapping, which is gone again below, and a byte for each of its pages.
    unsafe {
        let map =
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        let mut there = vec![0u8; length / 4096];
        let result = libc::mincore(map, length, there.as_mut_ptr());
        libc::munmap(map, length);
        (result == 0).then(|| there.iter().filter(|byte| **byte & 1 != 0).count() as u64)
    }
}
