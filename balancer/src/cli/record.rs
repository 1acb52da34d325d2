//! `balancer record`.

use crate::client::Client;
use anyhow::Context;
use clap::Args;
use hyper::Method;
use serde_json::Value;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Debug, Args)]
pub(super) struct Record {
    /// For so long
    #[arg(long, value_name = "S", default_value_t = 60)]
    pub seconds: u64,
    /// Into a file instead of to standard output
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
    let policy: Value = client.call(Method::GET, "/v1/policy", vec![]).await?;
    let interval = Duration::from_millis(policy["interval_ms"].as_u64().unwrap_or(1000));
    let mut clock = tokio::time::interval(interval);
    let end = Instant::now() + Duration::from_secs(command.seconds);
    loop {
        clock.tick().await;
        let observation: Value = client.call(Method::GET, "/v1/policy/observation", vec![]).await?;
        writeln!(out, "{observation}").context("Cannot write the observation")?;
        if Instant::now() >= end {
            return out.flush().context("Cannot write the recording");
        }
    }
}
