//! `balancer serve`.

use super::args::Serve;
use crate::api::Token;
use crate::daemon::{self, Options};
use crate::image::Store;
use protocol::place::Place;
use std::io;
use tracing_subscriber::EnvFilter;

pub(super) async fn run(place: Place, command: Serve) -> anyhow::Result<()> {
    // SAFETY: umask cannot fail. Nothing that a balancer makes is anybody else's business.
    unsafe { libc::umask(0o077) };
    // SAFETY: SIG_IGN is a valid disposition. A journal at the limit of a file's length (RLIMIT_FSIZE) is an error to
    // answer with, not a signal to die of.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
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
        place,
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
