//! The cost and the benefit of sharing images: mapping compared with copying, a first touch compared with one of the
//! page cache, scans of mapped and of resident pages, and merging by the kernel (KSM): `cargo bench -p vmm --bench
//! images`.
//!
//! Times are CPU time of the working thread unless another clock is named, each a median of several rounds; figures to
//! be compared are measured in alternation.

mod chunks;
mod faults;
#[allow(clippy::unwrap_used, dead_code, reason = "shared with tests")]
#[path = "../../tests/support/ksm.rs"]
mod ksm;
mod looks;
mod saved;

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use vmm::memory::images::OpenImage;

const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    // `cargo bench` passes `--bench`; the other arguments name the parts to run.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let parts: [(&str, fn()); 4] =
        [("chunks", chunks::run), ("faults", faults::run), ("looks", looks::run), ("saved", saved::run)];
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part();
            println!();
        }
    }
    ExitCode::SUCCESS
}

/// A file without a name, in the page cache, each page with its number. It vanishes with its descriptor.
fn file(bytes: u64) -> File {
    let mut file = unnamed();
    for page in 0..bytes / 4096 {
        let mut content = [0x5au8; 4096];
        content[..8].copy_from_slice(&(page + 1).to_le_bytes());
        file.write_all(&content).expect("room for the image");
    }
    // Dirty pages would be written back during the measurement.
    file.sync_all().expect("a disk");
    file
}

fn unnamed() -> File {
    use std::os::unix::fs::OpenOptionsExt;
    let dir = std::env::temp_dir();
    let open = std::fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_TMPFILE).open(&dir);
    open.unwrap_or_else(|error| panic!("a file in {}: {error}", dir.display()))
}

/// The same file, as an image that one guest may map.
fn image(file: &File) -> OpenImage {
    OpenImage::new("bench".into(), None, file.try_clone().expect("a descriptor")).expect("an image")
}

/// CPU time of this thread, microseconds.
fn cpu_us() -> f64 {
    // SAFETY: zeroed is a valid timespec, and the call fills it.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: a valid pointer to it.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// CPU time of some work, microseconds.
fn time(work: impl FnOnce()) -> f64 {
    let started = cpu_us();
    work();
    cpu_us() - started
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() - 1) / 2]
}

/// Reads a byte of each page.
fn touch(address: u64, bytes: u64) {
    for at in (address..address + bytes).step_by(4096) {
        // SAFETY: the caller has mapped these pages.
        unsafe {
            std::ptr::with_exposed_provenance::<u8>(usize::try_from(at).expect("an address")).read_volatile()
        };
    }
}
