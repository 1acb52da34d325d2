//! `--dry-run`: what a change would do.

use super::print;
use protocol::bytes::Human;
use serde_json::Value;

/// A request's path, for the change or for its plan.
pub(super) fn route(path: &str, dry_run: bool) -> String {
    let sign = if path.contains('?') { '&' } else { '?' };
    if dry_run { format!("{path}{sign}dry_run=true") } else { path.to_owned() }
}

/// Shows a plan, for people or as it is.
pub(super) fn show(plan: &Value, as_json: bool) -> anyhow::Result<()> {
    let text = if as_json { serde_json::to_string_pretty(plan)? + "\n" } else { sentences(plan) };
    print(&text).map(drop)
}

fn sentences(plan: &Value) -> String {
    let human =
        |bytes: &Value| bytes.as_u64().map_or_else(|| "none".into(), |bytes| Human(bytes).to_string());
    let mut text = String::new();
    for target in plan["targets"].as_array().into_iter().flatten() {
        text += &format!(
            "{}: target {} -> {}: {}\n",
            target["guest"].as_str().unwrap_or("?"),
            human(&target["now_bytes"]),
            human(&target["target_bytes"]),
            target["reason"].as_str().unwrap_or("?")
        );
    }
    for short in plan["shortfalls"].as_array().into_iter().flatten() {
        let (path, needed) = (short["container"].as_str().unwrap_or("?"), human(&short["needed_bytes"]));
        text += &format!(
            "{path}: its guests need {needed}, and {} is what they may use\n",
            human(&short["budget_bytes"])
        );
    }
    if text.is_empty() { "No target would change\n".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plan_in_sentences() {
        let plan = json!({
            "targets": [{"guest": "a", "now_bytes": null, "target_bytes": 2 << 20, "reason": "because"}],
            "shortfalls": [{"container": "/x", "needed_bytes": 3 << 20, "budget_bytes": 1 << 20}],
        });
        let text = "a: target none -> 2M: because\n/x: its guests need 3M, and 1M is what they may use\n";
        assert_eq!(sentences(&plan), text);
        assert_eq!(sentences(&json!({})), "No target would change\n");
    }

    #[test]
    fn a_query_is_one_query() {
        assert_eq!((route("/a", false), route("/a", true)), ("/a".into(), "/a?dry_run=true".into()));
        assert_eq!(route("/a?b=c", true), "/a?b=c&dry_run=true");
    }
}
