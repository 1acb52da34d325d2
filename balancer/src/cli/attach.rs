//! `balancer attach` and `balancer detach`.

use super::exit::Usage;
use super::pay::encoded;
use crate::client::Client;
use clap::Args;
use hyper::Method;
use protocol::bytes::Human;
use protocol::limits::LimitsPatch;
use protocol::path::ContainerPath;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Attach {
    /// Unix socket of the guest's QMP monitor
    #[arg(long, value_name = "SOCKET")]
    pub qmp: PathBuf,
    /// The guest's name here [default: the socket's file name without its ending]
    #[arg(long)]
    pub name: Option<String>,
    /// The container that it is attached to; made if there is none [default: /NAME]
    #[arg(long, value_name = "PATH")]
    pub container: Option<ContainerPath>,
    /// Limits of that container: 2G, or any of max=2G,high=1.5G,low=512M,min=256M,weight=200
    #[arg(long, value_name = "LIMIT", value_parser = limits, allow_negative_numbers = true)]
    pub limit: Option<String>,
    /// Show the guest as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Detach {
    /// The guest's name
    pub guest: String,
    /// Show what became of it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Limits as a `vmm` takes them, which reads them again.
fn limits(text: &str) -> Result<String, String> {
    text.parse::<LimitsPatch>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

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
    let told = match command.json {
        true => serde_json::to_string_pretty(&left)?,
        false => format!("{}: {}", text("guest"), text("detail")),
    };
    writeln!(std::io::stdout(), "{told}").ok();
    Ok(())
}

/// What was attached, and what cannot be had of it.
fn sentence(guest: &Value) -> String {
    let text = |field: &str| guest[field].as_str().unwrap_or("?").to_owned();
    let bytes = |field: &str| Human(guest[field].as_u64().unwrap_or(0));
    let mut out = format!(
        "{}: in {}, {} of RAM on QEMU process {}, target {}",
        text("name"),
        text("container"),
        bytes("ram_bytes"),
        guest["machine_pid"],
        bytes("target_bytes")
    );
    if guest["has_balloon"] == false {
        out += "\nIt has no balloon: it is watched and charged, and cannot be made to give memory, whatever its limit";
    } else if guest["balloon"]["driver_ready"] == false {
        out += "\nIts balloon's driver said nothing yet: until one does, the guest cannot be made to give memory";
    }
    if let Some(why) = guest["ram_unseen"].as_str() {
        out += &format!("\nWhich frames of its RAM the host holds is unknown: {why}");
    }
    out
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

    #[test]
    fn what_cannot_be_had_of_it_is_said_below() {
        let silent = json!({"has_balloon": true, "balloon": {"driver_ready": false}});
        assert!(sentence(&silent).contains("driver said nothing yet"), "{}", sentence(&silent));
        let without =
            json!({"has_balloon": false, "balloon": {"driver_ready": false}, "ram_unseen": "a file"});
        let text = sentence(&without);
        assert!(text.contains("It has no balloon") && text.ends_with("is unknown: a file"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
