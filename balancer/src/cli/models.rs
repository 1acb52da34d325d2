//! `balancer models`.

use super::print;
use crate::models::{Report, Trace, figure, into_markers, markdown, mixed, text};
use anyhow::Context;
use clap::Args;
use std::fs;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Models {
    /// Seed of the made-up traces: the same seed gives the same figures, but for times
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Play this trace as well: one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Write the made-up mixed trace to a file and measure nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "json", "svg", "into"])]
    pub record: Option<PathBuf>,
    /// JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Draw a figure as well
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Replace the table between the markers of a Markdown file as well
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,
}

pub(super) fn run(command: &Models) -> anyhow::Result<()> {
    if let Some(path) = &command.record {
        fs::write(path, mixed(command.seed).to_text())
            .with_context(|| format!("Cannot write {}", path.display()))?;
        return Ok(());
    }
    let trace = match &command.trace {
        Some(path) => {
            let text = fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))?;
            let name =
                path.file_stem().map_or_else(|| "trace".into(), |stem| stem.to_string_lossy().into_owned());
            let trace = Trace::parse(&name, &text);
            Some(trace.with_context(|| format!("{} is no trace", path.display()))?)
        }
        None => None,
    };
    let document = match &command.into {
        Some(path) => {
            let document =
                fs::read_to_string(path).with_context(|| format!("Cannot read {}", path.display()))?;
            anyhow::ensure!(
                into_markers(&document, "").is_some(),
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
        let document = into_markers(&document, &markdown(&report)).unwrap_or(document);
        fs::write(path, document).with_context(|| format!("Cannot write {}", path.display()))?;
    }
    let out = if command.json { serde_json::to_string_pretty(&report)? + "\n" } else { text(&report) };
    print(&out)?;
    Ok(())
}
