//! `balancer simulate`.

use super::markers::into_markers;
use anyhow::Context;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use simulator::{Figures, Settings, replay, simulate, versus};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// Seed of the host: the same seed gives the same run, to the byte
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of guests
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = guests())]
    pub guests: usize,
    /// Simulated time, hours
    #[arg(long, value_name = "H", default_value_t = 1.0, value_parser = hours)]
    pub hours: f64,
    /// Simulated time between two ticks, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub interval_ms: u64,
    /// Replay a recording of `balancer record` instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["compare", "into"])]
    pub trace: Option<PathBuf>,
    /// Print a table: the same hosts under this policy and under the published rules of Proxmox VE and oVirt MoM
    #[arg(long, conflicts_with = "json")]
    pub compare: bool,
    /// Replace the table between the markers of a Markdown file as well
    #[arg(long, value_name = "FILE", requires = "compare")]
    pub into: Option<PathBuf>,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

fn guests() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=20_000)
}

fn hours(text: &str) -> Result<f64, String> {
    let wrong = || "must be a number above 0, at most 1000".to_owned();
    let hours: f64 = text.parse().map_err(|_| wrong())?;
    if hours > 0.0 && hours <= 1000.0 { Ok(hours) } else { Err(wrong()) }
}

pub(super) fn run(command: &Simulate) -> anyhow::Result<()> {
    if let Some(path) = &command.trace {
        return play(command, path);
    }
    if command.compare {
        return compare(command);
    }
    let outcome = simulate(&Settings {
        seed: command.seed,
        guests: command.guests,
        length_ms: length_ms(command),
        interval_ms: command.interval_ms,
    });
    if command.json {
        print(&(serde_json::to_string_pretty(&outcome)? + "\n"));
    } else {
        let Figures { ticks, ticks_at_rest, targets_changed, .. } = outcome.figures;
        let Figures { reclaimed_mib, starved_s, host_oom_ticks, .. } = outcome.figures;
        print(&format!(
            "seed {}, {} guests, {ticks} ticks ({ticks_at_rest} at rest): ",
            outcome.seed, outcome.guests
        ));
        print(&format!("{targets_changed} targets changed, {reclaimed_mib} MiB reclaimed, "));
        print(&format!(
            "{starved_s} guest-seconds starved, {host_oom_ticks} ticks with nothing left on the host\n"
        ));
        for violation in &outcome.first_violations {
            let (at_s, invariant) = (violation.at_ms / 1000, violation.invariant);
            print(&format!("{at_s:>8} s  {invariant}: {}\n", violation.detail));
        }
    }
    anyhow::ensure!(
        outcome.violations == 0,
        "{} violations of what must hold at every tick",
        outcome.violations
    );
    Ok(())
}

fn length_ms(command: &Simulate) -> u64 {
    (command.hours * 3_600_000.0) as u64
}

fn print(text: &str) {
    // It is not an error if the reader closed the pipe.
    std::io::stdout().write_all(text.as_bytes()).ok();
}

/// Replays a recording.
fn play(command: &Simulate, path: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))?;
    let replay = replay(&text).with_context(|| format!("{} is not a recording", path.display()))?;
    if command.json {
        print(&(serde_json::to_string_pretty(&replay)? + "\n"));
    } else {
        for change in &replay.changes {
            let (at_s, mib) = (change.at_ms as f64 / 1000.0, change.target_bytes >> 20);
            print(&format!("{at_s:>10.1} s  {:<16} {mib:>8}M  {}\n", change.guest, change.reason));
        }
        print(&format!("{} observations, {} violations\n", replay.ticks, replay.violations));
    }
    anyhow::ensure!(
        replay.violations == 0,
        "The sum of targets exceeds the budget at {} observations",
        replay.violations
    );
    Ok(())
}

/// Prints the comparison with other rules, and writes it into a document.
fn compare(command: &Simulate) -> anyhow::Result<()> {
    let table = versus(command.seed, command.guests, length_ms(command));
    if let Some(path) = &command.into {
        let document = fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))?;
        let document = into_markers("versus", &document, &table).with_context(|| {
            format!("{} has no lines <!-- versus:begin --> and <!-- versus:end -->", path.display())
        })?;
        fs::write(path, document).with_context(|| format!("Cannot write {}", path.display()))?;
    }
    print(&table);
    Ok(())
}
