//! `balancer policy`.

use super::preview;
use super::print::{print, shown};
use super::values::{OrWord, between, or_word};
use crate::client::{Client, routes};
use crate::objects::{KnobsPatch, PolicyObject};
use clap::Args;
use hyper::Method;
use policy::{IDLE_TAX_RANGE, INTERVAL_MS_RANGE, OomPolicy};
use protocol::bytes::{self, Human, ParseBytesError};

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

/// The knobs of the policy. A knob that is not given keeps its last value, or has its default.
#[derive(Debug, Args)]
pub(super) struct Knobs {
    /// Memory that is reserved for the host: 2G, or default for a sixteenth of its memory, at most 4G
    #[arg(long, value_name = "BYTES", value_parser = reserve, allow_negative_numbers = true)]
    pub reserve: Option<OrWord<u64>>,
    /// How much more a byte costs a guest that holds it without using it: 75, the default, makes an idle byte four
    /// times as expensive as a used one
    #[arg(long, value_name = "PERCENT", value_parser = idle_tax, allow_negative_numbers = true)]
    pub idle_tax: Option<u32>,
    /// Time between two ticks, milliseconds, 1000 by default. A changed limit, and a host whose tasks stall for memory,
    /// do not wait for the next tick
    #[arg(long, value_name = "MS", value_parser = interval, allow_negative_numbers = true)]
    pub interval_ms: Option<u64>,
    /// What happens when the host is about to run out of memory
    #[arg(long, value_name = "WHAT", value_enum)]
    pub oom_policy: Option<OomPolicy>,
}

impl Knobs {
    /// The requested change.
    pub(super) fn patch(&self) -> KnobsPatch {
        KnobsPatch {
            reserve_bytes: self.reserve.map(|reserve| reserve.0),
            idle_tax_percent: self.idle_tax,
            interval_ms: self.interval_ms,
            oom_policy: self.oom_policy,
        }
    }
}

/// An amount, or `default`.
fn reserve(text: &str) -> Result<OrWord<u64>, ParseBytesError> {
    or_word("default", text, bytes::parse)
}

fn idle_tax(text: &str) -> Result<u32, String> {
    between(text, IDLE_TAX_RANGE)
}

fn interval(text: &str) -> Result<u64, String> {
    between(text, INTERVAL_MS_RANGE)
}

pub(super) async fn run(client: &Client, command: &Policy) -> anyhow::Result<()> {
    let patch = command.knobs.patch();
    if patch == KnobsPatch::default() {
        return print(&shown(&client.policy().await?, command.json, sentences)).map(drop);
    }
    let changed = client.change(Method::PATCH, routes::POLICY, &patch, command.dry_run).await?;
    preview::show(&changed, command.json, sentences)
}

fn sentences(policy: &PolicyObject) -> String {
    let knobs = &policy.knobs;
    let mut text = format!(
        "reserve     {}\nidle tax    {} %\ninterval    {} ms\noom policy  {}\n",
        knobs.reserve_bytes.map_or("default".into(), |bytes| Human(bytes).to_string()),
        knobs.idle_tax_percent,
        knobs.interval_ms,
        knobs.oom_policy.name(),
    );
    if let Some(budget) = &policy.budget {
        let (bytes, reserve) = (Human(budget.bytes), Human(budget.reserve_bytes));
        text += &format!("Guests may hold {bytes} together; {reserve} are reserved for the host");
        text += if budget.stalled { ", twice as much as usual, because its tasks stall\n" } else { "\n" };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::policy::Budget;

    #[test]
    fn knobs_are_shown_in_sentences() {
        let budget = Budget { bytes: 5 << 30, reserve_bytes: 2 << 30, stalled: true };
        let knobs = ::policy::Knobs::default();
        let text = sentences(&PolicyObject { knobs, budget: Some(budget), stalled_age_ms: Some(5) });
        for words in ["reserve     default", "75 %", "1000 ms", "report", "hold 5G together; 2G", "stall"] {
            assert!(text.contains(words), "{text}");
        }
    }
}
