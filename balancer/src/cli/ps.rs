//! `balancer ps`.

use super::print;
use super::set::{bound, limits_of};
use crate::client::Client;
use clap::Args;
use hyper::Method;
use protocol::bytes::{FRAME_BYTES, Human};
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

const HEAD: [&str; 7] = ["CONTAINER / GUEST", "LIMIT", "USAGE", "TARGET", "ACTUAL", "RESIDENT", "AGE"];

pub(super) async fn run(client: &Client, as_json: bool) -> anyhow::Result<()> {
    let containers: Vec<Value> = client.call(Method::GET, "/v1/containers", vec![]).await?;
    let guests: Vec<Value> = client.call(Method::GET, "/v1/guests", vec![]).await?;
    let host: Value = client.call(Method::GET, "/v1/host", vec![]).await?;
    if as_json {
        let all = json!({ "accounting": host["accounting"], "containers": containers, "guests": guests,
            "waiting": host["waiting"] });
        print(&(serde_json::to_string_pretty(&all)? + "\n"))?;
        return Ok(());
    }
    let accounting = host["accounting"].as_str().unwrap_or("?");
    let waiting = waiting(host["waiting"].as_array().map_or(&[], Vec::as_slice));
    let (table, notes) = (table(&containers, &guests), notes(&guests));
    print(&format!("{table}\nUSAGE is counted by {accounting}.\n{notes}{waiting}"))?;
    Ok(())
}

/// Guests that wait for memory, a line each.
fn waiting(guests: &[Value]) -> String {
    let line = |guest: &Value| {
        let text = |field: &str| guest[field].as_str().unwrap_or("?").to_owned();
        let (name, container, since) = (text("guest"), text("container"), age(&guest["waited_ms"]));
        format!("{name} waits for {container}, {since}: {}\n", text("reason"))
    };
    guests.iter().map(line).collect()
}

/// The tree: each container, below it its guests, then the containers inside it.
fn table(containers: &[Value], guests: &[Value]) -> String {
    let mut rows: Vec<[String; 7]> = vec![HEAD.map(str::to_owned)];
    for container in containers {
        let path = container["path"].as_str().unwrap_or("?");
        let depth = if path == "/" { 0 } else { path.matches('/').count() };
        rows.push([
            format!("{}{path}", "  ".repeat(depth)),
            limits_text(container),
            human(&container["usage_bytes"]),
            human(&container["target_bytes"]),
            String::new(),
            String::new(),
            age(&container["usage_age_ms"]),
        ]);
        for guest in guests.iter().filter(|guest| guest["container"] == container["path"]) {
            rows.push([
                format!("{}{}", "  ".repeat(depth + 1), guest["name"].as_str().unwrap_or("?")),
                format!("{} RAM", human(&guest["ram_bytes"])),
                human(&guest["usage_bytes"]),
                human(&guest["target_bytes"]),
                human(&guest["actual_bytes"]),
                human(&guest["resident_bytes"]),
                age(&guest["resident_age_ms"]),
            ]);
        }
    }
    align(&rows)
}

/// What a figure does not show: machines that do not answer, guests that cannot give, and frames that nobody can tell the state of.
fn notes(guests: &[Value]) -> String {
    let mut text = String::new();
    for guest in guests {
        let name = guest["name"].as_str().unwrap_or("?");
        if let Some(reason) = guest["stuck"].as_str() {
            text += &format!("{name} is stuck for {}: {reason}\n", age(&guest["stuck_age_ms"]));
        }
        if guest["has_balloon"] == false {
            text += &format!("{name} has no balloon: it cannot be made to give memory.\n");
        } else if guest["health"] == "unserved" {
            text += &format!("{name} does not serve its balloon: it cannot be made to give memory.\n");
        }
        let unknown = guest["frames"]["unknown"].as_u64().unwrap_or(0);
        if let Some(why) = guest["ram_unseen"].as_str() {
            text += &format!("{name}: which frames of its RAM the host holds is unknown: {why}\n");
        } else if unknown > 0 {
            let bytes = Human(unknown.saturating_mul(FRAME_BYTES));
            text += &format!(
                "{name}: {bytes} of its RAM is unknown, without host memory and QEMU does not tell why.\n"
            );
        }
    }
    text
}

fn limits_text(container: &Value) -> String {
    let limits = limits_of(container);
    let mut words = Vec::new();
    for (word, bytes) in [("max", limits.max_bytes), ("high", limits.high_bytes)] {
        if bytes.is_some() {
            words.push(format!("{word} {}", bound(bytes)));
        }
    }
    for (word, bytes) in [("low", limits.low_bytes), ("min", limits.min_bytes)] {
        if bytes > 0 {
            words.push(format!("{word} {}", Human(bytes)));
        }
    }
    for kind in ["vcpus", "guests", "devices", "fds", "threads"] {
        let object = &container["objects"][kind];
        if let (Some(used), Some(max)) = (object["used"].as_u64(), object["max"].as_u64()) {
            words.push(format!("{kind} {used}/{max}"));
        }
    }
    if words.is_empty() { "none".into() } else { words.join(", ") }
}

fn human(bytes: &Value) -> String {
    bytes.as_u64().map_or("-".into(), |bytes| Human(bytes).to_string())
}

fn age(ms: &Value) -> String {
    ms.as_u64().map_or("-".into(), |ms| format!("{}.{}s", ms / 1000, ms % 1000 / 100))
}

/// The first two columns to the left, figures to the right.
fn align(rows: &[[String; 7]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            line += &if column < 2 { format!("{cell:<width$}  ") } else { format!("{cell:>width$}  ") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_table_does_not_show_is_said_below_it() {
        let guests = [
            json!({"name": "a", "frames": {"unknown": 0}, "stuck": null}),
            json!({"name": "b", "frames": {"unknown": 512}, "stuck": "QEMU did not answer", "stuck_age_ms": 2100}),
        ];
        let text = notes(&guests);
        assert!(
            text.starts_with("b is stuck for 2.1s: QEMU did not answer\nb: 2M of its RAM is unknown"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2);
        let guests = [
            json!({"name": "c", "has_balloon": false, "health": "without_balloon", "frames": {"unknown": 512},
                "ram_unseen": "it is a file"}),
            json!({"name": "d", "has_balloon": true, "health": "unserved", "frames": {"unknown": 0}}),
        ];
        let text = notes(&guests);
        assert!(
            text.starts_with("c has no balloon") && text.contains("d does not serve its balloon"),
            "{text}"
        );
        // What is not seen may be held: nothing is said of its having no memory.
        assert!(
            text.contains("c: which frames of its RAM the host holds is unknown: it is a file"),
            "{text}"
        );
        assert!(!text.contains("without host memory"), "{text}");
    }

    #[test]
    fn the_tree_with_its_guests() {
        let containers = [
            json!({"path": "/", "usage_bytes": 0, "target_bytes": 0, "usage_age_ms": null}),
            json!({"path": "/web", "max_bytes": 512 << 20, "objects": {"vcpus": {"used": 3, "max": 4}, "fds": {"used": 9, "max": null}}, "usage_bytes": 300 << 20, "target_bytes": 500 << 20, "usage_age_ms": 140}),
        ];
        let guests = [
            json!({"name": "a", "container": "/web", "ram_bytes": 1 << 30, "usage_bytes": 300 << 20,
            "target_bytes": 500 << 20, "actual_bytes": 500 << 20, "resident_bytes": 300 << 20, "resident_age_ms": 140}),
        ];
        let text = table(&containers, &guests);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["/", "none", "0B", "0B", "-"]);
        assert_eq!(lines[2], ["/web", "max", "512M,", "vcpus", "3/4", "300M", "500M", "0.1s"]);
        assert_eq!(lines[3], ["a", "1G", "RAM", "300M", "500M", "500M", "300M", "0.1s"]);
    }
}
