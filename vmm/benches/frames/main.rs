//! The cost of the frame table, compared with the cost of Linux's memory cgroup on this kernel: `cargo bench -p vmm`.
//!
//! Each figure is a median of several rounds; figures to be compared are measured in alternation.

mod cgroup;
mod events;
mod faults;
mod guests;
mod scans;
mod storage;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == guests::AS_GUEST) {
        return guests::be_one();
    }
    // `cargo bench` passes `--bench`; the other arguments name the parts to run.
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let parts: [(&str, fn()); 5] = [
        ("storage", storage::run),
        ("events", events::run),
        ("faults", faults::run),
        ("scans", scans::run),
        ("guests", guests::run),
    ];
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| *wanted == name) {
            part();
            println!();
        }
    }
    ExitCode::SUCCESS
}

/// The median of some figures, and the spread between their quartiles.
fn median(mut figures: Vec<f64>) -> (f64, f64) {
    figures.sort_by(f64::total_cmp);
    let at = |part: usize| figures[(figures.len() - 1) * part / 4];
    (at(2), at(3) - at(1))
}
