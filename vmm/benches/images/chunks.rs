//! Bringing a part of an image into a guest: copying it into RAM against mapping it there, by the length of the part.

use super::{MIB, file, median, time, touch};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use vmm::memory::Ram;

const IMAGE_BYTES: u64 = 64 * MIB;
const KIB: [u64; 8] = [4, 8, 16, 64, 128, 512, 1024, 2048];
const ROUNDS: usize = 11;
/// Parts of a round. No two of them are adjacent, so that the kernel does not join their mappings.
const PARTS: u64 = 16;

pub fn run() {
    println!(
        "A part of an image in guest RAM, us of CPU    copy, cold   copy, hot   map + read   cold copy / map"
    );
    let image = file(IMAGE_BYTES);
    for kib in KIB {
        let bytes = kib * 1024;
        let mut figures: [Vec<f64>; 3] = Default::default();
        for _ in 0..ROUNDS {
            for (figure, spent) in figures.iter_mut().zip(round(&image, bytes)) {
                figure.push(spent / PARTS as f64);
            }
        }
        let [cold, hot, mapped] = figures.map(median);
        println!("  {kib:>6} KiB {cold:>43.1} {hot:>11.1} {mapped:>12.1} {:>17.2}", cold / mapped);
    }
}

/// Copying into untouched RAM, copying into touched RAM, and mapping over it and reading all of it.
fn round(image: &File, bytes: u64) -> [f64; 3] {
    // Small pages: the first byte would bring a huge page.
    let ram = Ram::new(IMAGE_BYTES).expect("memory");
    let host = ram.slots().next().expect("a region").1;
    let whole =
        std::ptr::with_exposed_provenance_mut::<libc::c_void>(usize::try_from(host).expect("an address"));
    // SAFETY: advice on the RAM just made.
    unsafe { libc::madvise(whole, usize::try_from(IMAGE_BYTES).expect("a length"), libc::MADV_NOHUGEPAGE) };
    let length = usize::try_from(bytes).expect("a length");
    let parts = || (0..PARTS).map(|part| part * 2 * bytes).take_while(|at| at + bytes <= IMAGE_BYTES);
    let copy = || {
        for at in parts() {
            // SAFETY: inside the RAM just made, which no other code uses.
            let target =
                unsafe { std::slice::from_raw_parts_mut(whole.cast::<u8>().add(at as usize), length) };
            image.read_exact_at(target, at).expect("a part of the image");
        }
    };
    let map = || {
        for at in parts() {
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            // SAFETY: replaces a part of the RAM just made, which no other code uses.
            let mapped = unsafe {
                libc::mmap(
                    whole.add(at as usize),
                    length,
                    libc::PROT_READ,
                    flags,
                    image.as_raw_fd(),
                    at as libc::off_t,
                )
            };
            assert_ne!(mapped, libc::MAP_FAILED);
            touch(host + at, bytes);
        }
    };
    let scale = PARTS as f64 / parts().count() as f64;
    [time(copy) * scale, time(copy) * scale, time(map) * scale]
}
