//! `balancer policy`.

use super::args::Policy;
use super::{plan, print};
use crate::client::Client;
use crate::engine::KnobsPatch;
use hyper::Method;
use protocol::bytes::Human;
use serde_json::Value;

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
