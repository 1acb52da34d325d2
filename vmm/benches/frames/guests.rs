//! A hundred guests that share one rate limit: each is a process with RAM, a table and the reconciler of `vmm`.
//!
//! A quarter touches and releases memory all the time, the others are idle. The figure is the CPU time of all
//! reconciler threads together, by the kernel's count.

use super::median;
use protocol::frames::{ErrorSource, FrameReader, FrameTable, Transition};
use protocol::message::RECONCILE_CPU_PPM;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};
use vmm::disk_cache::DiskCache;
use vmm::memory::{Pagemap, Ram};
use vmm::reconciler::Reconciler;

pub const AS_GUEST: &str = "--as-guest";
const GUESTS: u32 = 100;
const BUSY_EVERY: u32 = 4;
const FRAMES: u64 = (64 << 20) / 4096;
const RUN: Duration = Duration::from_secs(20);

pub fn run() {
    let program = std::env::current_exe().expect("this program");
    let started: Vec<Child> = (0..GUESTS)
        .map(|guest| {
            let mut command = Command::new(&program);
            command.arg(AS_GUEST).arg(if guest % BUSY_EVERY == 0 { "busy" } else { "idle" });
            command.stdout(Stdio::piped()).spawn().expect("a guest")
        })
        .collect();
    let mut figures: Vec<[f64; 6]> = vec![];
    for mut child in started {
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert!(child.wait().expect("a guest").success(), "a guest failed");
        let numbers: Vec<f64> =
            line.split_whitespace().map(|number| number.parse().expect("a number")).collect();
        figures.push(numbers.try_into().expect("six figures"));
    }
    let sum = |at: usize| figures.iter().map(|guest| guest[at]).sum::<f64>();
    let seconds = sum(1) / f64::from(GUESTS);
    let spent = sum(0);
    println!("{GUESTS} guests of 64 MiB for {seconds:.1} s, a quarter of them busy, one budget");
    let share = spent / seconds;
    println!(
        "  CPU of all reconcilers              {:>9.3} % of one CPU (budget {:.1} %)",
        share * 100.0,
        f64::from(RECONCILE_CPU_PPM) / 1e4
    );
    for (name, busy) in [("busy", 1.0), ("idle", 0.0)] {
        let of = |at: usize| {
            median(figures.iter().filter(|guest| guest[2] == busy).map(|guest| guest[at]).collect()).0
        };
        println!(
            "  {name}: median age of the last pass  {:>7.0} ms, error bound {:>6.0} frames, \
             off the kernel's count {:>6.0}",
            of(3),
            of(4),
            of(5)
        );
    }
    println!("  each guest's count was within its published bound when it stopped");
    assert!(share <= f64::from(RECONCILE_CPU_PPM) / 1e6, "the budget holds: {share}");
}

/// One guest, in a process of its own. It prints: CPU seconds of its reconciler, seconds, busy, age of the last pass,
/// published error, true error.
pub fn be_one() -> ExitCode {
    let busy = std::env::args().any(|argument| argument == "busy");
    let ram = Arc::new(Ram::new(FRAMES * 4096).expect("memory"));
    super::scans::advise(&ram, libc::MADV_NOHUGEPAGE);
    let table = Arc::new(FrameTable::new(ram.regions()).expect("a table"));
    let reader = FrameReader::open(table.fd()).expect("a reader");
    let pagemap = Pagemap::open().expect("a pagemap");
    touch(&ram, 0, FRAMES / 4);
    let reconciler =
        Reconciler::start(Arc::clone(&ram), Arc::default(), Arc::clone(&table), DiskCache::default())
            .expect("a thread");
    reconciler.set_share(RECONCILE_CPU_PPM / GUESTS);
    let started = Instant::now();
    let mut step = 0;
    while started.elapsed() < RUN {
        if busy {
            // One run is touched, another one goes into the balloon.
            let first = step * 389 % (FRAMES - 64);
            touch(&ram, first, 64);
            let given = step * 811 % (FRAMES - 64);
            ram.release(&pagemap, given, 64).expect("released");
            table.apply(given, 64, Transition::Inflate);
            step += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = reconciler_cpu().as_secs_f64();
    // Nothing moves from here on: the figures of the next reading must be within their bounds.
    let stopped = Instant::now();
    let mut totals = reader.totals();
    while u128::from(totals.checked_age_ms.unwrap_or(u64::MAX)) + 1 > stopped.elapsed().as_millis() {
        std::thread::sleep(Duration::from_millis(10));
        totals = reader.totals();
    }
    assert!(totals.untiled == 0 && totals.error_source == ErrorSource::KernelTotal, "{totals:?}");
    let held: u64 =
        ram.slots().map(|(region, host)| pagemap.count_held(host, region.count).expect("an answer")).sum();
    let age = totals.reconciled_age_ms.unwrap_or(u64::MAX);
    let off = held.abs_diff(totals.private);
    assert!(off <= totals.error_frames_max, "{held} {totals:?}");
    println!("{cpu} {seconds} {} {age} {} {off}", u8::from(busy), totals.error_frames_max);
    ExitCode::SUCCESS
}

fn touch(ram: &Ram, first: u64, count: u64) {
    for frame in first..first + count {
        ram.guest().write_obj(1u8, GuestAddress(frame * 4096)).expect("RAM");
    }
}

/// CPU time of the thread named `reconciler`, from its scheduler statistics: nanoseconds on a CPU.
fn reconciler_cpu() -> Duration {
    for task in std::fs::read_dir("/proc/self/task").expect("own threads").flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim() == "reconciler" {
            let nanos = read("schedstat").split_whitespace().next().and_then(|text| text.parse().ok());
            return Duration::from_nanos(nanos.expect("a kernel with scheduler statistics"));
        }
    }
    panic!("the reconciler runs");
}
