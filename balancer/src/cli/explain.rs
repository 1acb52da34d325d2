//! `balancer explain`.

use crate::client::Client;
use clap::Args;
use hyper::Method;
use protocol::bytes::Human;
use serde_json::Value;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A container: /web/a; or a guest's name
    pub what: String,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn run(client: &Client, command: &Explain) -> anyhow::Result<()> {
    // A container's path starts with a slash, a guest's name never does.
    let route = match command.what.strip_prefix('/') {
        Some(inside) => format!("/v1/explain/{inside}"),
        None => format!("/v1/guests/{}/explain", command.what),
    };
    let answer: Value = client.call(Method::GET, &route, vec![]).await?;
    let text = match command.json {
        true => serde_json::to_string_pretty(&answer)? + "\n",
        false => match answer["guests"].as_array() {
            Some(guests) => {
                let head = format!(
                    "{}: its guests are asked to hold {}, and need {}\n",
                    answer["path"].as_str().unwrap_or("?"),
                    human(&answer["target_bytes"]),
                    human(&answer["need_bytes"])
                );
                guests.iter().fold(head, |text, guest| text + "\n" + &sentences(guest))
            }
            None => sentences(&answer),
        },
    };
    std::io::stdout().write_all(text.as_bytes()).ok();
    Ok(())
}

/// A guest's explanation as people read it.
fn sentences(guest: &Value) -> String {
    let text = |field: &str| guest[field].as_str().unwrap_or("?").to_owned();
    let mut out = format!(
        "{}: {}\n  {} ({})\n  it is {}\n",
        text("guest"),
        human(&guest["target_bytes"]),
        text("reason"),
        text("rule"),
        text("health").replace('_', " ")
    );
    if let Some(why) = guest["cannot_give"].as_str() {
        out += &format!("  {why}\n");
    }
    for input in guest["inputs"].as_array().into_iter().flatten() {
        let age = input["age_ms"].as_u64().map_or(String::new(), |age| format!(", {age} ms ago"));
        out += &format!("  {:>10}  {}{age}\n", human(&input["bytes"]), input["name"].as_str().unwrap_or("?"));
    }
    for way in guest["to_get_more"].as_array().into_iter().flatten() {
        out += &format!("  more: {}\n", way.as_str().unwrap_or("?"));
    }
    out
}

fn human(bytes: &Value) -> String {
    bytes.as_u64().map_or_else(|| "?".into(), |bytes| Human(bytes).to_string())
}
