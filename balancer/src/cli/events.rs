//! `balancer events`.

use super::print;
use crate::client::Client;
use crate::events::Event;
use crate::readiness;
use clap::Args;
use hyper::Method;
use std::os::fd::AsFd;
use tokio::io::Interest;

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Wait for more
    #[arg(long, short)]
    pub follow: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn run(client: &Client, command: &Events) -> anyhow::Result<()> {
    if command.follow {
        let mut shown = Ok(true);
        let each = |data: &str| {
            // Something that is no event is from a newer balancer; the next one may be known again.
            if let Ok(event) = serde_json::from_str(data) {
                shown = show(&event, command.json);
            }
            matches!(shown, Ok(true))
        };
        tokio::select! {
            followed = client.follow("/v1/events", each) => followed?,
            // `head -1` has its line: the next event need not come for that to be the end.
            () = reader_gone() => {}
        }
        return shown.map(drop);
    }
    let events: Vec<Event> = client.call(Method::GET, "/v1/events?follow=false", vec![]).await?;
    for event in &events {
        if !show(event, command.json)? {
            break;
        }
    }
    Ok(())
}

/// Shows an event. False once nobody reads any more.
fn show(event: &Event, json: bool) -> anyhow::Result<bool> {
    let line = if json {
        serde_json::to_string(event).expect("an event has only plain fields")
    } else {
        let (seconds, ms) = (event.at_ms / 1000, event.at_ms % 1000);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let subject = match (&event.guest, &event.container) {
            (Some(guest), Some(container)) => format!("{guest} in {container}"),
            (Some(guest), None) => guest.clone(),
            (None, Some(container)) => container.to_string(),
            (None, None) => "-".into(),
        };
        format!(
            "{hour:02}:{minute:02}:{second:02}.{ms:03}Z {:<17} {subject:<24} {}",
            event.kind, event.detail
        )
    };
    print(&(line + "\n"))
}

/// Waits until nobody can read standard output any more; for ever where the kernel does not tell (a file).
async fn reader_gone() {
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    let Ok(stdout) = stdout.and_then(|stdout| readiness::watch(stdout, Interest::ERROR)) else {
        return std::future::pending().await;
    };
    if stdout.ready(Interest::ERROR).await.is_err() {
        std::future::pending().await
    }
}
