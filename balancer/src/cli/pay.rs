//! `balancer move` and `balancer charge`.

use super::plan;
use super::values::{OrWord, or_word};
use crate::client::Client;
use clap::{Args, ValueEnum};
use hyper::Method;
use protocol::bytes::Human;
use protocol::path::{ContainerPath, ParsePathError};
use serde_json::{Value, json};
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Move {
    /// The guest's name
    pub guest: String,
    /// The container that it is attached to from now on; it must exist
    pub container: ContainerPath,
    /// What becomes of what it is charged for
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub charges: Charges,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the guest as JSON
    #[arg(long)]
    pub json: bool,
}

/// Where the charges of a guest go that moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Charges {
    /// The new container pays for every frame that the guest holds
    #[default]
    Move,
    /// Whoever pays for a frame that it holds pays until it is given back
    Leave,
}

#[derive(Debug, Args)]
pub(super) struct Charge {
    /// The guest's name
    pub guest: String,
    /// The container that pays, or - for the guest's own again
    #[arg(value_parser = payer)]
    pub container: OrWord<ContainerPath>,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the guest as JSON
    #[arg(long)]
    pub json: bool,
}

/// A container, or `-` for the guest's own.
fn payer(text: &str) -> Result<OrWord<ContainerPath>, ParsePathError> {
    or_word("-", text, str::parse)
}

pub(super) async fn move_guest(client: &Client, command: &Move) -> anyhow::Result<()> {
    let charges = if command.charges == Charges::Move { "move" } else { "leave" };
    let body = json!({ "container": command.container, "charges": charges });
    patch(client, &command.guest, &body, (command.dry_run, command.json)).await
}

pub(super) async fn charge(client: &Client, command: &Charge) -> anyhow::Result<()> {
    let body = json!({ "charge_to": command.container.0 });
    patch(client, &command.guest, &body, (command.dry_run, command.json)).await
}

async fn patch(
    client: &Client,
    guest: &str,
    body: &Value,
    (dry_run, as_json): (bool, bool),
) -> anyhow::Result<()> {
    let name: String = guest.bytes().map(encoded).collect();
    let route = plan::route(&format!("/v1/guests/{name}"), dry_run);
    let guest: Value = client.call(Method::PATCH, &route, serde_json::to_vec(body)?).await?;
    if dry_run {
        return plan::show(&guest, as_json);
    }
    let mut out = std::io::stdout().lock();
    // The change is made, whether or not anybody reads of it.
    if as_json {
        writeln!(out, "{}", serde_json::to_string_pretty(&guest)?).ok();
    } else {
        writeln!(out, "{}", sentence(&guest)).ok();
    }
    Ok(())
}

fn sentence(guest: &Value) -> String {
    let text = |field: &str| guest[field].as_str().unwrap_or("?").to_owned();
    let payer = guest["charge_to"].as_str().unwrap_or("it");
    let target = Human(guest["target_bytes"].as_u64().unwrap_or(0));
    let pending = if guest["charge_pending"] == true { "; its vmm did not confirm yet" } else { "" };
    let (name, container) = (text("name"), text("container"));
    format!("{name}: in {container}, new frames are charged to {payer}, target {target}{pending}")
}

/// A byte of a name in a path of a request (RFC 3986, section 2.1).
pub(super) fn encoded(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
        char::from(byte).into()
    } else {
        format!("%{byte:02X}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Arguments, Command};
    use clap::Parser;

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        let name: String = "a/b c?é".bytes().map(encoded).collect();
        assert_eq!(name, "a%2Fb%20c%3F%C3%A9");
    }

    #[test]
    fn who_pays_is_said_in_one_line() {
        let mut guest = json!({"name": "a", "container": "/b", "charge_to": null, "target_bytes": 64 << 20});
        assert_eq!(sentence(&guest), "a: in /b, new frames are charged to it, target 64M");
        guest["charge_to"] = json!("/x");
        guest["charge_pending"] = json!(true);
        assert!(sentence(&guest).ends_with("charged to /x, target 64M; its vmm did not confirm yet"));
    }

    #[test]
    fn a_guest_charges_a_container_or_its_own() {
        let payer = |text| match Arguments::try_parse_from(["balancer", "charge", "db", text])?.command {
            Command::Charge(charge) => Ok::<_, clap::Error>(charge.container.0.map(String::from)),
            _ => panic!("not charge"),
        };
        assert_eq!(payer("-").unwrap(), None);
        assert_eq!(payer("/a").unwrap().as_deref(), Some("/a"));
        assert!(payer("a").is_err() && payer("").is_err());
    }
}
