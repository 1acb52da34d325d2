//! `balancer explain`.

use super::print::{print_outcome, shown};
use crate::client::{Client, routes};
use crate::objects::ContainerExplanation;
use clap::Args;
use policy::Explanation;
use protocol::bytes::Human;
use protocol::path::ContainerPath;

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A container: /web/a; or a guest's name
    pub what: String,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

pub(super) async fn run(client: &Client, command: &Explain) -> anyhow::Result<()> {
    // The path of a container starts with a slash, the name of a guest never does.
    let text = if command.what.starts_with('/') {
        let path: ContainerPath = command.what.parse()?;
        let container: ContainerExplanation = client.get(&routes::explain_container(&path)).await?;
        shown(&container, command.json, container_text)
    } else {
        let guest: Explanation = client.get(&format!("{}/explain", routes::guest(&command.what))).await?;
        shown(&guest, command.json, guest_text)
    };
    print_outcome(&text);
    Ok(())
}

fn container_text(container: &ContainerExplanation) -> String {
    let (target, need) = (Human(container.target_bytes), Human(container.need_bytes));
    let head = format!("{}: its guests are asked to hold {target}, and need {need}\n", container.path);
    container.guests.iter().fold(head, |text, guest| text + "\n" + &guest_text(guest))
}

fn guest_text(guest: &Explanation) -> String {
    let mut out = format!(
        "{}: {}\n  {} ({})\n  it is {}\n",
        guest.guest,
        Human(guest.target_bytes),
        guest.reason,
        guest.rule,
        guest.health.name().replace('_', " ")
    );
    if let Some(why) = &guest.cannot_give {
        out += &format!("  {why}\n");
    }
    for input in &guest.inputs {
        let age = input.age_ms.map_or(String::new(), |age| format!(", {age} ms ago"));
        out += &format!("  {:>10}  {}{age}\n", Human(input.bytes).to_string(), input.name);
    }
    for way in &guest.to_get_more {
        out += &format!("  more: {way}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Health, Input};

    #[test]
    fn an_explanation_is_shown_in_lines() {
        let guest = Explanation {
            guest: "db".into(),
            target_bytes: 512 << 20,
            share_bytes: 512 << 20,
            health: Health::WithoutStatistics,
            cannot_give: None,
            rule: "limit".into(),
            reason: "The limit of /db".into(),
            inputs: vec![
                Input { name: "its RAM".into(), bytes: 1 << 30, age_ms: None },
                Input { name: "used".into(), bytes: 1 << 20, age_ms: Some(7) },
            ],
            to_get_more: vec!["raise max of /db".into()],
        };
        let text = guest_text(&guest);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["db: 512M", "  The limit of /db (limit)", "  it is without statistics"]);
        assert_eq!(lines[3..5], ["          1G  its RAM", "          1M  used, 7 ms ago"]);
        assert_eq!(lines[5..], ["  more: raise max of /db"]);
    }
}
