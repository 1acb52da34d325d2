//! `balancer serve`.

use super::policy::Knobs;
use crate::api::Token;
use crate::daemon::{self, Options};
use accounting::System;
use clap::{Args, ValueEnum};
use image::Store;
use protocol::image::Backing;
use protocol::run_dir::RunDir;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Exit 2 s after the last guest has left, or 30 s after the start if no guest has come
    #[arg(long)]
    pub exit_when_idle: bool,
    /// Also serve the API over TCP, to clients that send the token
    #[arg(long, value_name = "ADDRESS:PORT", requires = "token_file")]
    pub listen: Option<SocketAddr>,
    /// File whose first line is the token, at least 32 characters
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub token_file: Option<PathBuf>,
    /// The accounting system: it decides which container is charged for a frame
    #[arg(long, value_name = "SYSTEM", value_enum, default_value_t)]
    pub accounting: System,
    /// Folder with images [default: $BALLAST_STORE; else /var/lib/ballast for root, $XDG_DATA_HOME/ballast or
    /// ~/.local/share/ballast for others]
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// What holds the pages of images that guests share
    #[arg(long, value_name = "BACKING", value_enum, default_value_t)]
    pub pool: PoolBacking,
    /// Sample which part of their memory guests use with the kernel's data access monitor (DAMON), if this user may and
    /// no other program uses it
    #[arg(long)]
    pub working_sets: bool,
    #[command(flatten)]
    pub knobs: Knobs,
}

/// As `--pool` names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum PoolBacking {
    /// The page cache of their files: the users of a page are sampled, and the kernel reclaims pages that no guest uses
    #[default]
    Pagecache,
    /// Memory of the balancer, filled when a guest touches it: the users of a page are known, and the max of /common is
    /// never exceeded
    Managed,
}

impl From<PoolBacking> for Backing {
    fn from(pool: PoolBacking) -> Self {
        match pool {
            PoolBacking::Pagecache => Self::Pagecache,
            PoolBacking::Managed => Self::Managed,
        }
    }
}

pub(super) async fn run(run_dir: RunDir, command: Serve) -> anyhow::Result<()> {
    // The files of a balancer are for its user alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // A journal at the limit of a file's length (RLIMIT_FSIZE) is an error that a request is answered with.
    host::signals::ignore_file_size_limit();
    let filter = EnvFilter::try_from_env("BALLAST_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A log on a full disk loses lines. Complaining about it on standard error, which is the same disk, would panic.
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).log_internal_errors(false);
    log.with_env_filter(filter).init();
    let tcp = match (command.listen, command.token_file) {
        (Some(address), Some(file)) => Some((address, Token::read(&file)?)),
        _ => None,
    };
    let knobs = command.knobs.patch();
    daemon::run(Options {
        run_dir,
        exit_when_idle: command.exit_when_idle,
        tcp,
        accounting: command.accounting,
        knobs,
        working_sets: command.working_sets,
        pool: command.pool.into(),
        store: command.store.unwrap_or_else(Store::default_folder),
    })
    .await
}
