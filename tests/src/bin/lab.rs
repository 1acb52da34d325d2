//! `lab`: the demo, and counts of the lab's own reliability.

#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use e2e::ground::{GUEST, Ground, OUTER};
use e2e::wait::TOTAL_MAX;
use guest_images::KernelSeries;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs Linux guests on this host's KVM, or in the lab where the processor does not virtualize.
#[derive(Debug, Parser)]
#[command(name = "lab", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Three guests share memory under limits; a limit changes; two share a root image; a summary
    Demo {
        /// What runs the guests: qemu, on this machine as it is; kvm, in the lab where the processor does not
        /// virtualize; auto takes kvm where it does, else qemu
        #[arg(long, value_name = "auto|kvm|qemu", default_value = "auto", value_parser = ["auto", "kvm", "qemu"])]
        engine: String,
    },
    /// Boot guests one after the other and count how many reach user space
    Boots {
        /// Kernel series of the outer machine: 6.1 or 6.12
        #[arg(long, default_value_t = OUTER)]
        outer: KernelSeries,
        /// Kernel series of the guests: 6.1 or 6.12
        #[arg(long, default_value_t = GUEST)]
        guest: KernelSeries,
        /// Boots; every second one with four CPUs
        #[arg(long, default_value_t = 50)]
        count: u32,
    },
}

/// A demo takes three minutes or four. Its own waits follow progress; this bounds all of them together.
const DEMO_DEADLINE: Duration = Duration::from_secs(2 * TOTAL_MAX.as_secs());

/// A boot of the outer machine, and of each guest on average. Emulated, on a busy machine.
const BOOT_MAX: Duration = Duration::from_secs(150);

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    let ground = Ground::of_this_machine();
    match verb {
        Verb::Demo { engine } => demo(match (engine.as_str(), ground) {
            ("kvm", _) | ("auto", Ground::Native) => ground,
            _ => Ground::Qemu,
        }),
        Verb::Boots { outer, guest, count } => {
            let ground = if ground == Ground::Native { ground } else { Ground::Lab(outer) };
            let (guest, boots) = (guest.to_string(), count.to_string());
            let words = ["boots", "--guest", &guest, "--count", &boots];
            // A boot that hangs is given up by its own wait; the count goes on.
            let deadline = BOOT_MAX * (1 + count);
            let code = ground.run(&words, deadline, &mut |line| println!("{line}"))?;
            ensure!(code == 0, "Not all boots reached user space");
            Ok(())
        }
    }
}

fn demo(ground: Ground) -> Result<()> {
    let started = Instant::now();
    println!("Three Linux guests run {ground}.");
    let live = io::stdout().is_terminal();
    let words: &[&str] = if live { &["demo", "--live"] } else { &["demo"] };
    let mut stdout = io::stdout();
    let mut show = |line: &str| {
        // A reader that went away ends the demo no earlier than its summary.
        let _ = writeln!(stdout, "{line}");
    };
    let code = match ground.run(words, DEMO_DEADLINE, &mut show) {
        // Now and then the emulated machine around the guests dies.
        Err(error) if matches!(ground, Ground::Lab(_)) => {
            println!("The lab broke, a new one starts: {error:#}");
            ground.run(words, DEMO_DEADLINE, &mut show)
        }
        result => result,
    }
    .context("The demo did not run")?;
    ensure!(code == 0, "The demo failed, see above");
    println!("The demo took {:.0} s.", started.elapsed().as_secs_f64());
    Ok(())
}
