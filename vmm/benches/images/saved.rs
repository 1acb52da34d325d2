//! Memory saved by a second of CPU time: guests that map one image, compared with guests with copies in RAM that the
//! kernel merges (KSM at full speed). The same bytes, all of them read.

use super::{MIB, file, image, ksm, median, time, touch};
use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::{Duration, Instant};
use vmm::memory::{Images, Ram};

const IMAGE_BYTES: u64 = 128 * MIB;
const GUESTS: u64 = 4;
/// Bytes that all guests but one save.
const SAVED_BYTES: u64 = (GUESTS - 1) * IMAGE_BYTES;
const ROUNDS: usize = 11;
/// Rounds of merging: each takes seconds.
const MERGES: usize = 3;
const DEADLINE: Duration = Duration::from_secs(120);

pub fn run() {
    println!(
        "{GUESTS} guests with the same {} MiB                 s of CPU   MiB saved per s of CPU",
        IMAGE_BYTES / MIB
    );
    let file = file(IMAGE_BYTES);
    let row = |name: &str, seconds: f64, saved: f64| {
        println!("  {name:<40} {seconds:>10.3} {:>12.0}", saved / MIB as f64 / seconds);
    };
    let mapped = median((0..ROUNDS).map(|_| map(&file)).collect());
    row("an image mapped, every page read", mapped, SAVED_BYTES as f64);
    match ksm::Ksm::start() {
        Ok(ksm) => {
            let merges: Option<Vec<(f64, f64)>> = (0..MERGES).map(|_| merge(&file)).collect();
            drop(ksm);
            let Some(merges) = merges else {
                return println!("  SKIPPED KSM: ksmd is not to be seen, or did not merge in time");
            };
            let of = |which: fn(&(f64, f64)) -> f64| median(merges.iter().map(which).collect());
            let (seconds, saved) = (of(|round| round.0), of(|round| round.1));
            row("copies merged by KSM, its own time alone", seconds, saved);
            println!(
                "  mapping saves {:.0} times as much per second",
                SAVED_BYTES as f64 / mapped / (saved / seconds)
            );
        }
        Err(why) => println!("  SKIPPED KSM: {why}"),
    }
}

/// Seconds of CPU for all guests but one to map the image and to read every page.
fn map(file: &File) -> f64 {
    let one = || {
        let images = Images::map(vec![image(file)], 4 << 30).expect("a mapping");
        let (region, host) = images.slots().next().expect("an image");
        touch(host, region.count * 4096);
        images
    };
    let _first = one();
    let mut others = vec![];
    time(|| others.extend((1..GUESTS).map(|_| one()))) / 1e6
}

/// Seconds of CPU time in which ksmd merges as many copies, and the bytes that it saved.
fn merge(file: &File) -> Option<(f64, f64)> {
    let ksmd = ksmd()?;
    let guests: Vec<Ram> = (0..GUESTS).map(|_| copy(file)).collect();
    let before = spent(ksmd)?;
    guests.iter().for_each(|ram| ram.merge().expect("KSM is there"));
    let pages = GUESTS * IMAGE_BYTES / 4096;
    let deadline = Instant::now() + DEADLINE;
    while ksm::own("ksm_merging_pages")? < pages * 98 / 100 {
        if Instant::now() > deadline {
            return None;
        }
        sleep(Duration::from_millis(10));
    }
    let seconds = spent(ksmd)? - before;
    let merged = ksm::own("ksm_merging_pages")?;
    // One copy stays, and each scanned page costs the kernel 64 bytes.
    let saved = merged * 4096 * (GUESTS - 1) / GUESTS - ksm::own("ksm_rmap_items")? * 64;
    Some((seconds, saved as f64))
}

fn copy(file: &File) -> Ram {
    let ram = Ram::new(IMAGE_BYTES).expect("memory");
    let host = usize::try_from(ram.slots().next().expect("a region").1).expect("an address");
    // SAFETY: all of the RAM just made, which no other code uses yet.
    let all = unsafe {
        std::slice::from_raw_parts_mut(
            std::ptr::with_exposed_provenance_mut::<u8>(host),
            usize::try_from(IMAGE_BYTES).expect("a length"),
        )
    };
    file.read_exact_at(all, 0).expect("the image");
    ram
}

/// The kernel's thread that merges.
fn ksmd() -> Option<u32> {
    fs::read_dir("/proc").ok()?.find_map(|entry| {
        let entry = entry.ok()?;
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        (comm == "ksmd\n").then(|| entry.file_name().to_str()?.parse().ok())?
    })
}

/// CPU time of a thread of the kernel, seconds (proc_pid_stat(5), fields 14 and 15).
fn spent(pid: u32) -> Option<f64> {
    // More precise than `stat`, if the kernel has it: nanoseconds on a CPU.
    if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/schedstat")) {
        return Some(text.split_ascii_whitespace().next()?.parse::<f64>().ok()? / 1e9);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    // SAFETY: asks for a constant of the system.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(ticks / per_second as f64)
}
