//! `balancer ps`.

use super::print::{json, print};
use crate::client::Client;
use crate::objects::{ContainerObject, GuestObject, WaitingObject};
use accounting::System;
use clap::Args;
use policy::Health;
use protocol::bytes::{FRAME_BYTES, Human};
use protocol::limits::TABLE;
use protocol::objects::ObjectKind;
use serde::Serialize;

#[derive(Debug, Args)]
pub(super) struct Ps {
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The JSON of this command.
#[derive(Debug, Serialize)]
struct All<'a> {
    accounting: System,
    containers: &'a [ContainerObject],
    guests: &'a [GuestObject],
    waiting: &'a [WaitingObject],
}

const HEAD: [&str; 7] = ["CONTAINER / GUEST", "LIMIT", "USAGE", "TARGET", "ACTUAL", "RESIDENT", "AGE"];

pub(super) async fn run(client: &Client, as_json: bool) -> anyhow::Result<()> {
    let (containers, guests, host) =
        (client.containers().await?, client.guests().await?, client.host().await?);
    let accounting = host.accounting;
    if as_json {
        let all = All { accounting, containers: &containers, guests: &guests, waiting: &host.waiting };
        return print(&json(&all)).map(drop);
    }
    let (table, notes, waiting) = (table(&containers, &guests), notes(&guests), waiting(&host.waiting));
    print(&format!("{table}\nUSAGE is counted by {}.\n{notes}{waiting}", accounting.name())).map(drop)
}

/// Guests that wait for memory, a line each.
fn waiting(guests: &[WaitingObject]) -> String {
    let line = |guest: &WaitingObject| {
        let waited = age(Some(guest.waited_ms));
        format!("{} waits for {}, {waited}: {}\n", guest.guest, guest.container, guest.reason)
    };
    guests.iter().map(line).collect()
}

/// The tree: each container, below it its guests, then the containers inside it.
fn table(containers: &[ContainerObject], guests: &[GuestObject]) -> String {
    let mut rows: Vec<[String; 7]> = vec![HEAD.map(str::to_owned)];
    for container in containers {
        let depth = container.path.ancestors().count() - 1;
        rows.push([
            format!("{}{}", "  ".repeat(depth), container.path),
            limits(container),
            human(Some(container.usage_bytes)),
            human(Some(container.target_bytes)),
            String::new(),
            String::new(),
            age(container.usage_age_ms),
        ]);
        for guest in guests.iter().filter(|guest| guest.container == container.path) {
            rows.push([
                format!("{}{}", "  ".repeat(depth + 1), guest.name),
                format!("{} RAM", Human(guest.ram_bytes)),
                human(Some(guest.usage_bytes)),
                human(Some(guest.target_bytes)),
                human(Some(guest.actual_bytes)),
                human(guest.resident_bytes),
                age(guest.resident_age_ms),
            ]);
        }
    }
    align(&rows)
}

/// Notes on what the figures do not show: machines that do not answer, guests that cannot release memory, and frames
/// whose state is unknown.
fn notes(guests: &[GuestObject]) -> String {
    let mut text = String::new();
    for guest in guests {
        let name = &guest.name;
        if let Some(reason) = &guest.stuck {
            text += &format!("{name} is stuck for {}: {reason}\n", age(guest.stuck_age_ms));
        }
        if !guest.has_balloon {
            text += &format!("{name} has no balloon: it cannot be made to release memory.\n");
        } else if guest.health == Health::Unserved {
            text += &format!("{name} does not serve its balloon: it cannot be made to release memory.\n");
        }
        if let Some(why) = &guest.ram_unseen {
            text += &format!("{name}: which frames of its RAM the host holds is unknown: {why}\n");
        } else if guest.frames.unknown > 0 {
            let bytes = Human(guest.frames.unknown.saturating_mul(FRAME_BYTES));
            text += &format!(
                "{name}: {bytes} of its RAM is unknown: without host memory, and QEMU does not tell why.\n"
            );
        }
    }
    text
}

/// The limits that are set: those on memory, and those on objects with how many are used.
fn limits(container: &ContainerObject) -> String {
    let memory = TABLE.iter().filter(|row| row.value_name == "BYTES" && row.is_set(&container.limits));
    let memory = memory.filter_map(|row| Some(format!("{} {}", row.key, row.text(&container.limits)?)));
    let objects = ObjectKind::ALL.into_iter().filter_map(|kind| {
        let object = container.objects.get(kind);
        Some(format!("{} {}/{}", kind.name(), object.used, object.max?))
    });
    let words: Vec<String> = memory.chain(objects).collect();
    if words.is_empty() { "none".into() } else { words.join(", ") }
}

fn human(bytes: Option<u64>) -> String {
    bytes.map_or("-".into(), |bytes| Human(bytes).to_string())
}

fn age(ms: Option<u64>) -> String {
    ms.map_or("-".into(), |ms| format!("{}.{}s", ms / 1000, ms % 1000 / 100))
}

/// Aligns the first two columns to the left, and figures to the right.
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
    use crate::objects::testing;

    #[test]
    fn what_the_table_does_not_show_is_noted_below_it() {
        let [a, mut b, mut c, mut d] = ["a", "b", "c", "d"].map(|name| testing::guest(name, "/web"));
        b.frames.unknown = 512;
        (b.stuck, b.stuck_age_ms) = (Some("QEMU did not answer".into()), Some(2100));
        let text = notes(&[a, b]);
        assert!(
            text.starts_with("b is stuck for 2.1s: QEMU did not answer\nb: 2M of its RAM is unknown"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2);
        (c.has_balloon, c.health, c.ram_unseen) =
            (false, Health::WithoutBalloon, Some("it is a file".into()));
        c.frames.unknown = 512;
        d.health = Health::Unserved;
        let text = notes(&[c, d]);
        assert!(
            text.starts_with("c has no balloon") && text.contains("d does not serve its balloon"),
            "{text}"
        );
        // Frames that cannot be scanned may have host memory: the note does not deny it.
        assert!(
            text.contains("c: which frames of its RAM the host holds is unknown: it is a file"),
            "{text}"
        );
        assert!(!text.contains("without host memory"), "{text}");
    }

    #[test]
    fn the_tree_is_shown_with_its_guests() {
        let (root, mut web) = (testing::container("/"), testing::container("/web"));
        web.limits.max_bytes = Some(512 << 20);
        (web.objects.vcpus.used, web.objects.vcpus.max, web.objects.fds.used) = (3, Some(4), 9);
        (web.usage_bytes, web.target_bytes, web.usage_age_ms) = (300 << 20, 500 << 20, Some(140));
        let mut guest = testing::guest("a", "/web");
        (guest.usage_bytes, guest.target_bytes, guest.actual_bytes) = (300 << 20, 500 << 20, 500 << 20);
        (guest.resident_bytes, guest.resident_age_ms) = (Some(300 << 20), Some(140));
        let text = table(&[root, web], &[guest]);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["/", "none", "0B", "0B", "-"]);
        assert_eq!(lines[2], ["/web", "max", "512M,", "vcpus", "3/4", "300M", "500M", "0.1s"]);
        assert_eq!(lines[3], ["a", "1G", "RAM", "300M", "500M", "500M", "300M", "0.1s"]);
    }
}
