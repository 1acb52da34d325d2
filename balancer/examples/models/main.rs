//! `cargo run --release -p balancer --example models`: the four accounting systems, measured against each other.
//!
//! ```text
//!   trace (seed, attack, file) --> host: can it happen? --> steps --> each system --> charges by window
//!                              \-> truth: the use of every frame --------------------> difference
//! ```
//!
//! Nine criteria, those of the Linux memory-management wiki's comparison of memory containers (2007), each with
//! measured figures. The same seed gives the same figures except for times, whose names end in `_ns`.

mod attacks;
mod cost;
mod figure;
mod generate;
mod host;
mod lines;
mod measure;
mod replay;
mod report;
mod table;
mod trace;
mod truth;

use anyhow::Context;
use balancer::cli::into_markers;
use clap::Parser;
use figure::figure;
use generate::mixed;
use report::Report;
use std::fs;
use std::path::PathBuf;
use table::{markdown, text};
use trace::Trace;

/// Measure the accounting systems against each other.
#[derive(Debug, Parser)]
#[command(name = "models")]
struct Models {
    /// Seed of the generated traces: the same seed gives the same figures, except for times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Play this trace as well: one JSON object per line
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write the generated mixed trace to a file and measure nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "json", "svg", "into"])]
    record: Option<PathBuf>,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Draw a figure into this file as well
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Replace the table between the markers of a Markdown file as well
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    print!("{}", run(&Models::parse())?);
    Ok(())
}

/// Carries the command out; returns what it prints.
fn run(command: &Models) -> anyhow::Result<String> {
    if let Some(path) = &command.record {
        fs::write(path, mixed(command.seed).to_text())
            .with_context(|| format!("Cannot write {}", path.display()))?;
        return Ok(String::new());
    }
    let trace = match &command.trace {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))?;
            let name =
                path.file_stem().map_or_else(|| "trace".into(), |stem| stem.to_string_lossy().into_owned());
            let trace = Trace::parse(&name, &text);
            Some(trace.with_context(|| format!("{} is not a trace", path.display()))?)
        }
        None => None,
    };
    let document = match &command.into {
        Some(path) => {
            let document =
                fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))?;
            anyhow::ensure!(
                into_markers("models", &document, "").is_some(),
                "{} has no lines <!-- models:begin --> and <!-- models:end --> to put the table between",
                path.display()
            );
            Some((path, document))
        }
        None => None,
    };
    let report = Report::new(command.seed, trace);
    if let Some(path) = &command.svg {
        fs::write(path, figure(&report)).with_context(|| format!("Cannot write {}", path.display()))?;
    }
    if let Some((path, document)) = document {
        let document = into_markers("models", &document, &markdown(&report)).unwrap_or(document);
        fs::write(path, document).with_context(|| format!("Cannot write {}", path.display()))?;
    }
    Ok(if command.json { serde_json::to_string_pretty(&report)? + "\n" } else { text(&report) })
}

#[cfg(test)]
#[path = "command_test.rs"]
mod command;
#[cfg(test)]
#[path = "models_test.rs"]
mod tests;
