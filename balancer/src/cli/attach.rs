//! `balancer attach` and `balancer detach`.

use super::exit::Usage;
use super::print::{print_outcome, shown};
use crate::client::{Client, routes};
use crate::objects::{Detached, GuestObject, GuestPost};
use clap::Args;
use hyper::Method;
use protocol::bytes::Human;
use protocol::limits::LimitsPatch;
use protocol::path::ContainerPath;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Attach {
    /// Unix socket of the guest's QMP monitor
    #[arg(long, value_name = "SOCKET")]
    pub qmp: PathBuf,
    /// The guest's name in the balancer [default: the socket's file name without its ending]
    #[arg(long)]
    pub name: Option<String>,
    /// The container that it is attached to; created if it does not exist [default: /NAME]
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
    /// Show how it was left as JSON
    #[arg(long)]
    pub json: bool,
}

/// Limits as a `vmm` takes them, which parses them again.
fn limits(text: &str) -> Result<String, String> {
    text.parse::<LimitsPatch>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

pub(super) async fn attach(client: &Client, command: &Attach) -> anyhow::Result<()> {
    // The balancer has another working directory.
    let qmp = std::path::absolute(&command.qmp)?;
    if qmp.to_str().is_none() {
        return Err(Usage("the socket's path must be UTF-8".into()).into());
    }
    let (name, container, limit) = (command.name.clone(), command.container.clone(), command.limit.clone());
    let body = serde_json::to_vec(&GuestPost { qmp, name, container, limit })?;
    let guest: GuestObject = client.call(Method::POST, routes::GUESTS, body).await?;
    print_outcome(&shown(&guest, command.json, sentences));
    Ok(())
}

pub(super) async fn detach(client: &Client, command: &Detach) -> anyhow::Result<()> {
    let left: Detached = client.call(Method::DELETE, &routes::guest(&command.guest), vec![]).await?;
    print_outcome(&shown(&left, command.json, |left| format!("{}: {}\n", left.guest, left.detail)));
    Ok(())
}

/// The guest that was attached, and what is not possible with it.
fn sentences(guest: &GuestObject) -> String {
    let mut out = format!(
        "{}: in {}, {} of RAM on QEMU process {}, target {}\n",
        guest.name,
        guest.container,
        Human(guest.ram_bytes),
        guest.machine_pid.map_or("?".into(), |pid| pid.to_string()),
        Human(guest.target_bytes)
    );
    if !guest.has_balloon {
        out += "It has no balloon: it is watched and charged, and cannot be made to release memory, \
                whatever its limit\n";
    } else if !guest.balloon.driver_ready {
        out += "Its balloon's driver is not ready yet: until it is, the guest cannot be made to release memory\n";
    }
    if let Some(why) = &guest.ram_unseen {
        out += &format!("Which frames of its RAM the host holds is unknown: {why}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing;

    #[test]
    fn an_attached_guest_is_shown_in_one_line() {
        let mut guest = testing::guest("db", "/legacy/db");
        (guest.ram_bytes, guest.machine_pid, guest.target_bytes) = (4 << 30, Some(77), 2 << 30);
        assert_eq!(sentences(&guest), "db: in /legacy/db, 4G of RAM on QEMU process 77, target 2G\n");
    }

    #[test]
    fn what_is_not_possible_is_shown_below() {
        let mut guest = testing::guest("db", "/legacy/db");
        guest.balloon.driver_ready = false;
        assert!(sentences(&guest).contains("driver is not ready yet"), "{}", sentences(&guest));
        (guest.has_balloon, guest.ram_unseen) = (false, Some("a file".into()));
        let text = sentences(&guest);
        assert!(text.contains("It has no balloon") && text.ends_with("is unknown: a file\n"), "{text}");
        assert_eq!(text.lines().count(), 3);
    }
}
