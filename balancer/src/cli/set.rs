//! `balancer set` and `balancer rm`.

use super::exit::Usage;
use super::plan;
use super::values::{OrWord, between, or_word};
use crate::client::{Client, ClientError};
use clap::Args;
use hyper::Method;
use protocol::bytes::{self, Human, ParseBytesError};
use protocol::domain::{Domain, DomainError};
use protocol::limits::{Limits, LimitsPatch, WEIGHT_RANGE};
use protocol::objects::ObjectKind;
use protocol::path::ContainerPath;
use serde_json::Value;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The container: /web/a
    pub path: ContainerPath,
    /// Never exceeded: 512M, 1.5G, or none
    #[arg(long, value_name = "BYTES", value_parser = bytes_or_none, allow_negative_numbers = true)]
    pub max: Option<OrWord<u64>>,
    /// Reclaimed at once above this: 512M, 1.5G, or none
    #[arg(long, value_name = "BYTES", value_parser = bytes_or_none, allow_negative_numbers = true)]
    pub high: Option<OrWord<u64>>,
    /// Reclaimed below this only when nothing else is left
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse, allow_negative_numbers = true)]
    pub low: Option<u64>,
    /// Never reclaimed below this
    #[arg(long, value_name = "BYTES", value_parser = bytes::parse, allow_negative_numbers = true)]
    pub min: Option<u64>,
    /// Divides what is contended among siblings, 1 to 10000
    #[arg(long, value_name = "N", value_parser = weight, allow_negative_numbers = true)]
    pub weight: Option<u32>,
    /// Most virtual CPUs of the guests in it, or none
    #[arg(long, value_name = "N", value_parser = count_or_none, allow_negative_numbers = true)]
    pub max_vcpus: Option<OrWord<u32>>,
    /// Most guests in it, or none
    #[arg(long, value_name = "N", value_parser = count_or_none, allow_negative_numbers = true)]
    pub max_guests: Option<OrWord<u32>>,
    /// Most virtio devices of those guests, or none
    #[arg(long, value_name = "N", value_parser = count_or_none, allow_negative_numbers = true)]
    pub max_devices: Option<OrWord<u32>>,
    /// Most file descriptors of their vmms, or none
    #[arg(long, value_name = "N", value_parser = count_or_none, allow_negative_numbers = true)]
    pub max_fds: Option<OrWord<u32>>,
    /// Most threads of their vmms, or none
    #[arg(long, value_name = "N", value_parser = count_or_none, allow_negative_numbers = true)]
    pub max_threads: Option<OrWord<u32>>,
    /// Trust domain of the guests in it: pages of images are shared inside one alone; none for that of the container above
    #[arg(long, value_name = "NAME", value_parser = domain_or_none)]
    pub domain: Option<OrWord<Domain>>,
    /// Make the container if there is none
    #[arg(long)]
    pub create: bool,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the container as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Rm {
    /// The container: /web/a
    pub path: ContainerPath,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show what would change as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

impl Set {
    /// The change that is asked for.
    pub(super) fn patch(&self) -> LimitsPatch {
        LimitsPatch {
            min_bytes: self.min,
            low_bytes: self.low,
            high_bytes: self.high.map(|bound| bound.0),
            max_bytes: self.max.map(|bound| bound.0),
            weight: self.weight,
            max_vcpus: self.max_vcpus.map(|count| count.0),
            max_guests: self.max_guests.map(|count| count.0),
            max_devices: self.max_devices.map(|count| count.0),
            max_fds: self.max_fds.map(|count| count.0),
            max_threads: self.max_threads.map(|count| count.0),
            domain: self.domain.clone().map(|domain| domain.0),
        }
    }
}

fn weight(text: &str) -> Result<u32, String> {
    between(text, WEIGHT_RANGE)
}

fn bytes_or_none(text: &str) -> Result<OrWord<u64>, ParseBytesError> {
    or_word("none", text, bytes::parse)
}

fn count_or_none(text: &str) -> Result<OrWord<u32>, String> {
    let wrong = |_| format!("must be none or a number between 0 and {}", u32::MAX);
    or_word("none", text, |text| text.parse().map_err(wrong))
}

/// A trust domain, or `none` for that of the container above.
fn domain_or_none(text: &str) -> Result<OrWord<Domain>, DomainError> {
    or_word("none", text, str::parse)
}

pub(super) async fn set(client: &Client, command: &Set) -> anyhow::Result<()> {
    let patch = command.patch();
    if patch == LimitsPatch::default() && !command.create {
        return Err(
            Usage("Nothing to set: give at least one of --max, --high, --low, --min, --weight, --max-vcpus, --max-guests, --max-devices, --max-fds, --max-threads, --domain").into()
        );
    }
    let route = route(&command.path);
    let route = plan::route(&route, command.dry_run);
    let mut answer = client.call::<Value>(Method::PATCH, &route, serde_json::to_vec(&patch)?).await;
    if command.create && matches!(&answer, Err(ClientError::Refused(problem)) if problem.status == 404) {
        let limits = Limits::default().patched(&patch);
        answer = client.call(Method::PUT, &route, serde_json::to_vec(&limits)?).await;
    }
    let container = answer?;
    if command.dry_run {
        return plan::show(&container, command.json);
    }
    // The change is made, whether or not anybody reads of it.
    if command.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&container)?).ok();
        return Ok(());
    }
    let limits = limits_of(&container);
    let objects = ObjectKind::ALL.iter().filter_map(|kind| Some((kind.key(), limits.max_of(*kind)?)));
    let mut objects = objects.fold(String::new(), |text, (key, max)| format!("{text}, {key} {max}"));
    if let Some(domain) = &limits.domain {
        objects += &format!(", domain {domain}");
    }
    writeln!(
        std::io::stdout(),
        "{}: max {}, high {}, low {}, min {}, weight {}{objects}",
        command.path,
        bound(limits.max_bytes),
        bound(limits.high_bytes),
        Human(limits.low_bytes),
        Human(limits.min_bytes),
        limits.weight
    )
    .ok();
    Ok(())
}

pub(super) async fn remove(client: &Client, command: &Rm) -> anyhow::Result<()> {
    if command.path == ContainerPath::root() {
        return Err(Usage("/ is the host, which cannot be removed").into());
    }
    let route = plan::route(&route(&command.path), command.dry_run);
    let answer = client.call::<Value>(Method::DELETE, &route, vec![]).await?;
    if command.dry_run { plan::show(&answer, command.json) } else { Ok(()) }
}

/// A container's limits, from its object.
pub(super) fn limits_of(container: &Value) -> Limits {
    let bytes = |field: &str| container[field].as_u64();
    let count = |field: &str| bytes(field).and_then(|count| u32::try_from(count).ok());
    Limits {
        min_bytes: bytes("min_bytes").unwrap_or(0),
        low_bytes: bytes("low_bytes").unwrap_or(0),
        high_bytes: bytes("high_bytes"),
        max_bytes: bytes("max_bytes"),
        weight: count("weight").unwrap_or_default(),
        max_vcpus: count("max_vcpus"),
        max_guests: count("max_guests"),
        max_devices: count("max_devices"),
        max_fds: count("max_fds"),
        max_threads: count("max_threads"),
        domain: container["domain"].as_str().and_then(|domain| domain.parse().ok()),
    }
}

/// A limit that may be none.
pub(super) fn bound(bytes: Option<u64>) -> String {
    bytes.map_or("none".into(), |bytes| Human(bytes).to_string())
}

fn route(path: &ContainerPath) -> String {
    format!("/v1/containers{path}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Arguments, Command};
    use clap::Parser;

    #[test]
    fn limits_as_people_write_them() {
        let arguments = Arguments::parse_from([
            "balancer",
            "set",
            "/web/a",
            "--max",
            "1G",
            "--high",
            "none",
            "--weight",
            "7",
            "--max-vcpus",
            "4",
            "--max-fds",
            "none",
        ]);
        let Command::Set(set) = arguments.command else { panic!("not set") };
        let patch = LimitsPatch {
            max_bytes: Some(Some(1 << 30)),
            high_bytes: Some(None),
            weight: Some(7),
            max_vcpus: Some(Some(4)),
            max_fds: Some(None),
            ..Default::default()
        };
        assert_eq!(set.patch(), patch);
        for bad in [
            ["--max", "lots"],
            ["--max", "1e30"],
            ["--max", "-1"],
            ["--weight", "0"],
            ["--low", "none"],
            ["--max-vcpus", "-1"],
            ["--max-fds", "4294967296"],
        ] {
            assert!(
                Arguments::try_parse_from(["balancer", "set", "/a"].iter().chain(&bad)).is_err(),
                "{bad:?}"
            );
        }
    }
}
