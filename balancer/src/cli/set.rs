//! `balancer set` and `balancer rm`.

use super::exit::Usage;
use super::preview;
use crate::client::{Client, ClientError, routes};
use crate::objects::{Changed, ContainerObject};
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, FromArgMatches};
use hyper::Method;
use protocol::limits::{Limits, LimitsPatch, Row, TABLE};
use protocol::path::ContainerPath;

#[derive(Debug, Args)]
pub(super) struct Set {
    /// The container: /web/a
    pub path: ContainerPath,
    #[command(flatten)]
    pub limits: LimitFlags,
    /// Create the container if it does not exist
    #[arg(long)]
    pub create: bool,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the container as JSON
    #[arg(long)]
    pub json: bool,
}

/// A flag for each row of the table of limits.
#[derive(Debug, Default)]
pub(super) struct LimitFlags {
    /// The requested change.
    pub patch: LimitsPatch,
}

impl Args for LimitFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(TABLE.iter().map(flag))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for LimitFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for row in TABLE {
            if let Some(text) = matches.get_one::<String>(row.field) {
                let wrong = |error| clap::Error::raw(ErrorKind::ValueValidation, error);
                row.read(&mut self.patch, text).map_err(wrong)?;
            }
        }
        Ok(())
    }
}

fn flag(row: &'static Row) -> Arg {
    let checked = |text: &str| row.read(&mut LimitsPatch::default(), text).map(|_| text.to_owned());
    Arg::new(row.field)
        .long(row.key)
        .value_name(row.value_name)
        .help(row.help)
        .value_parser(checked)
        .allow_negative_numbers(true)
}

#[derive(Debug, Args)]
pub(super) struct Rm {
    /// The container: /web/a
    pub path: ContainerPath,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show what would change, as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

pub(super) async fn set(client: &Client, command: &Set) -> anyhow::Result<()> {
    let patch = &command.limits.patch;
    if *patch == LimitsPatch::default() && !command.create {
        let flags: Vec<String> = TABLE.iter().map(|row| format!("--{}", row.key)).collect();
        return Err(Usage(format!("Nothing to set: give at least one of {}", flags.join(", "))).into());
    }
    let (route, dry_run) = (routes::container(&command.path), command.dry_run);
    let mut answer: Result<Changed<ContainerObject>, _> =
        client.change(Method::PATCH, &route, patch, dry_run).await;
    if command.create && matches!(&answer, Err(ClientError::Refused(problem)) if problem.status == 404) {
        answer = client.change(Method::PUT, &route, &Limits::default().patched(patch), dry_run).await;
    }
    preview::show(&answer?, command.json, sentence)
}

fn sentence(container: &ContainerObject) -> String {
    let limits = &container.limits;
    let texts = TABLE.iter().filter_map(|row| Some(format!("{} {}", row.key, row.text(limits)?)));
    format!("{}: {}\n", container.path, texts.collect::<Vec<String>>().join(", "))
}

pub(super) async fn remove(client: &Client, command: &Rm) -> anyhow::Result<()> {
    if command.path.is_root() {
        return Err(Usage("/ is the host, which cannot be removed".into()).into());
    }
    match client.remove(&routes::container(&command.path), command.dry_run).await? {
        Some(preview) => preview::show_preview(&preview, command.json),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Arguments, Command};
    use crate::objects::testing;
    use clap::Parser;

    #[test]
    fn a_container_is_shown_with_the_limits_that_it_has() {
        let mut container = testing::container("/web");
        container.limits = "max=1G,weight=7,max-fds=500"
            .parse::<LimitsPatch>()
            .map(|p| Limits::default().patched(&p))
            .unwrap();
        container.limits.domain = Some("tenants".parse().unwrap());
        assert_eq!(
            sentence(&container),
            "/web: max 1G, high none, low 0B, min 0B, weight 7, max-fds 500, domain tenants\n"
        );
    }

    #[test]
    fn flags_of_limits_are_read() {
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
        assert_eq!(set.limits.patch, patch);
        for bad in [
            ["--max", "lots"],
            ["--max", "1e30"],
            ["--max", "-1"],
            ["--weight", "0"],
            ["--low", "none"],
            ["--domain", "/"],
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
