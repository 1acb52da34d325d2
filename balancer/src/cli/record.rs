//! `balancer record`.

use crate::client::Client;
use anyhow::Context;
use clap::Args;
use policy::Observation;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(super) struct Record {
    /// Length of the recording, seconds
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub seconds: u64,
    /// Write to a file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub into: Option<PathBuf>,
}

pub(super) async fn run(client: &Client, command: &Record) -> anyhow::Result<()> {
    let mut out: Box<dyn Write> = match &command.into {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("Cannot write {}", path.display()))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(std::io::stdout()),
    };
    let interval = Duration::from_millis(client.policy().await?.knobs.interval_ms);
    let mut clock = tokio::time::interval(interval);
    let end = Instant::now() + Duration::from_secs(command.seconds);
    loop {
        clock.tick().await;
        let observation: Observation = client.get("/v1/policy/observation").await?;
        let line = serde_json::to_string(&observation).context("Cannot encode the observation")?;
        writeln!(out, "{line}").context("Cannot write the observation")?;
        if Instant::now() >= end {
            return out.flush().context("Cannot write the recording");
        }
    }
}
