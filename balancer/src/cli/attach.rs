//! `balancer attach` and `balancer detach`.

use super::args::{Attach, Detach};
use super::exit::Usage;
use super::pay::encoded;
use crate::client::Client;
use hyper::Method;
use protocol::bytes::Human;
use serde_json::{Value, json};
use std::io::Write;

pub(super) async fn attach(client: &Client, command: &Attach) -> anyhow::Result<()> {
    // The balancer has another working directory.
    let qmp = std::path::absolute(&command.qmp)?;
    let Some(qmp) = qmp.to_str() else { return Err(Usage("the socket's path must be UTF-8").into()) };
    let body = json!({
        "qmp": qmp, "name": command.name, "container": command.container, "limit": command.limit,
    });
    let guest: Value = client.call(Method::POST, "/v1/guests", serde_json::to_vec(&body)?).await?;
    let mut out = std::io::stdout().lock();
    // It is attached, whether or not anybody reads of it.
    if command.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&guest)?).ok();
    } else {
        writeln!(out, "{}", sentence(&guest)).ok();
    }
    Ok(())
}

pub(super) async fn detach(client: &Client, command: &Detach) -> anyhow::Result<()> {
    let name: String = command.guest.bytes().map(encoded).collect();
    let left: Value = client.call(Method::DELETE, &format!("/v1/guests/{name}"), vec![]).await?;
    let text = |field: &str| left[field].as_str().unwrap_or("?").to_owned();
    writeln!(std::io::stdout(), "{}: {}", text("guest"), text("detail")).ok();
    Ok(())
}

fn sentence(guest: &Value) -> String {
    let text = |field: &str| guest[field].as_str().unwrap_or("?").to_owned();
    let bytes = |field: &str| Human(guest[field].as_u64().unwrap_or(0));
    format!(
        "{}: in {}, {} of RAM on QEMU process {}, target {}",
        text("name"),
        text("container"),
        bytes("ram_bytes"),
        guest["machine_pid"],
        bytes("target_bytes")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_attached_is_said_in_one_line() {
        let guest = json!({"name": "db", "container": "/legacy/db", "ram_bytes": 4u64 << 30, "machine_pid": 77,
            "target_bytes": 2u64 << 30});
        assert_eq!(sentence(&guest), "db: in /legacy/db, 4G of RAM on QEMU process 77, target 2G");
    }
}
