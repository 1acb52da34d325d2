//! `balancer policy`.

use super::values::{OrWord, between, or_word};
use super::{plan, print};
use crate::client::Client;
use crate::state::KnobsPatch;
use clap::Args;
use hyper::Method;
use policy::{IDLE_TAX_RANGE, INTERVAL_MS_RANGE, OomPolicy};
use protocol::bytes::{self, Human, ParseBytesError};
use serde_json::Value;

#[derive(Debug, Args)]
pub(super) struct Policy {
    #[command(flatten)]
    pub knobs: Knobs,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// The knobs of the policy. What is not given is as it was turned last, or its default.
#[derive(Debug, Args)]
pub(super) struct Knobs {
    /// Memory that guests leave to the host: 2G, or default for a sixteenth of it, at most 4G
    #[arg(long, value_name = "BYTES", value_parser = reserve, allow_negative_numbers = true)]
    pub reserve: Option<OrWord<u64>>,
    /// How much dearer a byte that a guest holds and does not use is to it than one that it uses: 75, the default, makes it four
    /// times as dear
    #[arg(long, value_name = "PERCENT", value_parser = idle_tax, allow_negative_numbers = true)]
    pub idle_tax: Option<u32>,
    /// Time between two turns of sampling and deciding, milliseconds, 1000 by default; a changed limit does not wait for a turn, nor
    /// does a host that stalls for memory
    #[arg(long, value_name = "MS", value_parser = interval, allow_negative_numbers = true)]
    pub interval_ms: Option<u64>,
    /// What happens when the host is about to run out of memory
    #[arg(long, value_name = "WHAT", value_enum)]
    pub oom_policy: Option<OomPolicy>,
}

impl Knobs {
    /// The change that is asked for.
    pub(super) fn patch(&self) -> KnobsPatch {
        KnobsPatch {
            reserve_bytes: self.reserve.map(|reserve| reserve.0),
            idle_tax_percent: self.idle_tax,
            interval_ms: self.interval_ms,
            oom_policy: self.oom_policy,
        }
    }
}

/// An amount, or the default one.
fn reserve(text: &str) -> Result<OrWord<u64>, ParseBytesError> {
    or_word("default", text, bytes::parse)
}

fn idle_tax(text: &str) -> Result<u32, String> {
    between(text, IDLE_TAX_RANGE)
}

fn interval(text: &str) -> Result<u64, String> {
    between(text, INTERVAL_MS_RANGE)
}

const ROUTE: &str = "/v1/policy";

pub(super) async fn run(client: &Client, command: &Policy) -> anyhow::Result<()> {
    let patch = command.knobs.patch();
    let policy: Value = if patch == KnobsPatch::default() {
        client.call(Method::GET, ROUTE, vec![]).await?
    } else {
        let route = plan::route(ROUTE, command.dry_run);
        let answer = client.call(Method::PATCH, &route, serde_json::to_vec(&patch)?).await?;
        if command.dry_run {
            return plan::show(&answer, command.json);
        }
        answer
    };
    let text = if command.json { serde_json::to_string_pretty(&policy)? + "\n" } else { sentences(&policy) };
    print(&text).map(drop)
}

fn sentences(policy: &Value) -> String {
    let human = |bytes: &Value| bytes.as_u64().map(|bytes| Human(bytes).to_string());
    let budget = &policy["budget"];
    let mut text = format!(
        "reserve     {}\nidle tax    {} %\ninterval    {} ms\noom policy  {}\n",
        human(&policy["reserve_bytes"]).unwrap_or_else(|| "default".into()),
        policy["idle_tax_percent"],
        policy["interval_ms"],
        policy["oom_policy"].as_str().unwrap_or("?"),
    );
    if let (Some(bytes), Some(reserve)) = (human(&budget["bytes"]), human(&budget["reserve_bytes"])) {
        text += &format!("Guests may hold {bytes} together; {reserve} are kept for the host");
        text += if budget["stalled"] == true { ", twice as much as usual: its tasks stall\n" } else { "\n" };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn knobs_in_sentences() {
        let policy = json!({
            "reserve_bytes": null, "idle_tax_percent": 75, "interval_ms": 1000, "oom_policy": "report",
            "budget": {"bytes": 5u64 << 30, "reserve_bytes": 2u64 << 30, "stalled": true}, "stalled_age_ms": 5,
        });
        let text = sentences(&policy);
        for words in ["reserve     default", "75 %", "1000 ms", "report", "hold 5G together; 2G", "stall"] {
            assert!(text.contains(words), "{text}");
        }
    }
}
