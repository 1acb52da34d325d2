//! `balancer move` and `balancer charge`.

use super::preview;
use super::values::{OrWord, or_word};
use crate::client::{Client, routes};
use crate::objects::{Charges, GuestObject, GuestPatch};
use clap::Args;
use hyper::Method;
use protocol::bytes::Human;
use protocol::path::{ContainerPath, ParsePathError};

#[derive(Debug, Args)]
pub(super) struct Move {
    /// The guest's name
    pub guest: String,
    /// The container that it is attached to from now on; it must exist
    pub container: ContainerPath,
    /// Where its charges go
    #[arg(long, value_name = "WHERE", value_enum, default_value_t)]
    pub charges: Charges,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the guest as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Charge {
    /// The guest's name
    pub guest: String,
    /// The container that is charged, or - for the guest's own again
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
    let patch = GuestPatch {
        container: Some(command.container.clone()),
        charges: Some(command.charges),
        charge_to: None,
    };
    patch_guest(client, &command.guest, &patch, (command.dry_run, command.json)).await
}

pub(super) async fn charge(client: &Client, command: &Charge) -> anyhow::Result<()> {
    let patch = GuestPatch { charge_to: Some(command.container.0.clone()), ..Default::default() };
    patch_guest(client, &command.guest, &patch, (command.dry_run, command.json)).await
}

async fn patch_guest(
    client: &Client,
    guest: &str,
    patch: &GuestPatch,
    (dry_run, as_json): (bool, bool),
) -> anyhow::Result<()> {
    let changed = client.change(Method::PATCH, &routes::guest(guest), patch, dry_run).await?;
    preview::show(&changed, as_json, sentence)
}

fn sentence(guest: &GuestObject) -> String {
    let payer = guest.charge_to.as_ref().map_or("it", ContainerPath::as_str);
    let target = Human(guest.target_bytes);
    let pending = if guest.charge_pending { "; its vmm did not confirm yet" } else { "" };
    let (name, container) = (&guest.name, &guest.container);
    format!("{name}: in {container}, new frames are charged to {payer}, target {target}{pending}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Arguments, Command};
    use crate::objects::testing;
    use clap::Parser;

    #[test]
    fn the_charged_container_is_shown_in_one_line() {
        let mut guest = testing::guest("a", "/b");
        guest.target_bytes = 64 << 20;
        assert_eq!(sentence(&guest), "a: in /b, new frames are charged to it, target 64M\n");
        guest.charge_to = Some("/x".parse().unwrap());
        guest.charge_pending = true;
        assert!(sentence(&guest).ends_with("charged to /x, target 64M; its vmm did not confirm yet\n"));
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
