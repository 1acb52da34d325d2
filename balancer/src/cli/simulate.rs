//! `balancer simulate`.

use super::markers::into_markers;
use super::values::between;
use anyhow::Context;
use clap::Args;
use simulator::{Settings, replay, simulate, versus};
use std::fs;
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// Seed of all random numbers: the same seed gives the same run, to the byte
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of guests on the host
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = guests)]
    pub guests: usize,
    /// Simulated time, hours
    #[arg(long, value_name = "H", default_value_t = 1.0, value_parser = hours)]
    pub hours: f64,
    /// Simulated time between two ticks, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub interval_ms: u64,
    /// Replay a file of `balancer record` instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "into"])]
    pub trace: Option<PathBuf>,
    /// Also run the same hosts under the published rules of Proxmox VE and oVirt MoM, and print a table
    #[arg(long, conflicts_with = "json")]
    pub compare: bool,
    /// Also replace the table between the markers of a Markdown file
    #[arg(long, value_name = "FILE", requires = "compare")]
    pub into: Option<PathBuf>,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

fn guests(text: &str) -> Result<usize, String> {
    between(text, 1..=20_000)
}

fn hours(text: &str) -> Result<f64, String> {
    let wrong = || "must be a number above 0, at most 1000".to_owned();
    let hours: f64 = text.parse().map_err(|_| wrong())?;
    if hours > 0.0 && hours <= 1000.0 { Ok(hours) } else { Err(wrong()) }
}

pub(super) fn run(command: &Simulate) -> anyhow::Result<()> {
    let out = |text: &str| {
        // It is not an error if the reader closes the pipe early.
        std::io::stdout().write_all(text.as_bytes()).ok();
    };
    let hours_ms = (command.hours * 3_600_000.0) as u64;
    if let Some(path) = &command.trace {
        let text = fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))?;
        let replay = replay(&text).with_context(|| format!("{} is not a recording", path.display()))?;
        if command.json {
            out(&(serde_json::to_string_pretty(&replay)? + "\n"));
        } else {
            for change in &replay.changes {
                let mib = change.target_bytes >> 20;
                out(&format!(
                    "{:>10.1} s  {:<16} {mib:>8}M  {}\n",
                    change.at_ms as f64 / 1000.0,
                    change.guest,
                    change.reason
                ));
            }
            out(&format!("{} observations, {} violations\n", replay.ticks, replay.violations));
        }
        anyhow::ensure!(
            replay.violations == 0,
            "The sum of targets exceeds the budget at {} observations",
            replay.violations
        );
        return Ok(());
    }
    if command.compare {
        let table = versus(command.seed, command.guests, hours_ms);
        if let Some(path) = &command.into {
            let document =
                fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))?;
            let document = into_markers("versus", &document, &table).with_context(|| {
                format!("{} has no lines <!-- versus:begin --> and <!-- versus:end -->", path.display())
            })?;
            fs::write(path, document).with_context(|| format!("Cannot write {}", path.display()))?;
        }
        out(&table);
        return Ok(());
    }
    let settings = Settings {
        seed: command.seed,
        guests: command.guests,
        length_ms: hours_ms,
        interval_ms: command.interval_ms,
    };
    let outcome = simulate(&settings);
    if command.json {
        out(&(serde_json::to_string_pretty(&outcome)? + "\n"));
    } else {
        let figures = &outcome.figures;
        out(&format!(
            "seed {}, {} guests, {} ticks ({} at rest): {} targets changed, {} MiB reclaimed, \
             {} guest-seconds starved, {} ticks with nothing left on the host\n",
            outcome.seed,
            outcome.guests,
            figures.ticks,
            figures.ticks_at_rest,
            figures.targets_changed,
            figures.reclaimed_mib,
            figures.starved_s,
            figures.host_oom_ticks
        ));
        for violation in &outcome.first_violations {
            out(&format!("{:>8} s  {}: {}\n", violation.at_ms / 1000, violation.invariant, violation.detail));
        }
    }
    anyhow::ensure!(outcome.violations == 0, "Invariants were broken {} times", outcome.violations);
    Ok(())
}
