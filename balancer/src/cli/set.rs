//! `balancer set` and `balancer rm`.

use super::args::{Rm, Set};
use super::exit::Usage;
use super::plan;
use crate::client::{Client, ClientError};
use hyper::Method;
use protocol::bytes::Human;
use protocol::limits::{Limits, LimitsPatch};
use protocol::objects::ObjectKind;
use protocol::path::ContainerPath;
use serde_json::Value;
use std::io::Write;

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
