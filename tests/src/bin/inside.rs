//! `inside`: the program that runs next to the Linux guests, on a host with KVM or in the lab's outer machine.
//!
//! Its output is for the program that started it. Of a scenario, one line, tab separated: `RESULT`, name, `ok` or
//! `FAILED`, milliseconds. What went wrong follows in lines that start with `DETAIL`.

#![forbid(unsafe_code)]

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};
use e2e::Engine;
use e2e::linux::Images;
use e2e::scenarios::{ALL, cannot};
use e2e::{boots, demo, evidence};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Debug, Parser)]
struct Arguments {
    /// Folder with the guests' images
    #[arg(long)]
    images: PathBuf,
    /// Folder with the layers of a root, for scenarios that need them
    #[arg(long, default_value = "/library")]
    library: PathBuf,
    /// The processor is emulated: what a guest's triple fault ended runs once more, and that is said
    #[arg(long)]
    emulated: bool,
    /// Kernel series of guests that name none
    #[arg(long)]
    series: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run scenarios, one after the other
    Scenarios {
        /// Their names
        #[arg(value_parser = PossibleValuesParser::new(ALL.iter().map(|(name, _)| *name)))]
        names: Vec<String>,
        /// Seed of the stress test
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Boot guests one after the other and count
    Boots(boots::Plan),
    /// Run the demo
    Demo(demo::Options),
}

fn main() -> ExitCode {
    let Arguments { images, library, emulated, series, verb } = Arguments::parse();
    let images = Images { dir: images, library, default: series, seed: 1 };
    let result = match verb {
        Verb::Scenarios { names, seed } => Ok(scenarios(&images.seeded(seed), &names, emulated)),
        Verb::Boots(plan) => boots::run(&images, &plan).map(|failed| failed == 0),
        Verb::Demo(options) => demo(&images, &options, emulated),
    };
    match result {
        Ok(good) => ExitCode::from(u8::from(!good)),
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// QEMU's emulation of nested guests is not perfect: about one guest in fifty dies of a triple fault, and now and then
/// the machine around them. A guest that a fault of ours kills dies of it again. On a real processor nothing is
/// repeated.
fn attempt(emulated: bool, name: &str, run: impl Fn() -> Result<()>) -> std::result::Result<(), String> {
    match evidence::with(&run) {
        Err(error) if emulated && error.contains("triple fault") => {
            println!("RETRY\t{name}: a guest died of a triple fault on the emulated processor");
            evidence::with(&run)
        }
        result => result,
    }
}

fn demo(images: &Images, options: &demo::Options, emulated: bool) -> Result<bool> {
    let run = || demo::run(images, options);
    attempt(emulated, "demo", run).map(|()| true).map_err(anyhow::Error::msg)
}

fn scenarios(images: &Images, names: &[String], emulated: bool) -> bool {
    let mut good = true;
    for (name, scenario) in ALL.iter().filter(|(name, _)| names.iter().any(|chosen| chosen == name)) {
        if let Some(why) = cannot(Engine::current(), name) {
            println!("CANNOT\t{name}\t{why}");
            continue;
        }
        let started = Instant::now();
        let result = attempt(emulated, name, || skip::named(name, || scenario(images)));
        let took = started.elapsed().as_millis();
        match result {
            Ok(()) => println!("RESULT\t{name}\tok\t{took}"),
            Err(error) => {
                good = false;
                println!("RESULT\t{name}\tFAILED\t{took}");
                for line in error.lines() {
                    println!("DETAIL\t{name}\t{line}");
                }
            }
        }
    }
    good
}
