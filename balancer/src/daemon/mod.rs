//! A balancer's life: lock, journal, sockets, ticks, end.
//!
//! ```text
//!   lock the run directory -> load the journal -> bind both sockets -> serve ... -> remove the sockets
//! ```
//!
//! Each tick makes sure that the run directory is still this balancer's, and binds sockets again that were removed.

mod descriptors;
mod idle;
mod pressure;
mod run_dir;
mod sockets;

pub use run_dir::{Owned, RunDirError};

use crate::api::{self, Places, Token, router};
use crate::journal::Journal;
use crate::objects::KnobsPatch;
use crate::pool::{IMAGES_OPEN_MAX, Library};
use crate::sessions;
use crate::state::{Balancer, HostKernel};
use accounting::System;
use anyhow::Context;
use axum::middleware;
use protocol::image::Backing;
use protocol::run_dir::RunDir;
use sockets::Sockets;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Connections of the API at a time, by socket: a client that holds all of one delays neither the other nor guests.
const API_PLACES: usize = 512;
const TCP_PLACES: usize = 128;
/// Scans of the pool may take one part in this many of a CPU.
const SCAN_CPU_PART: u32 = 100;

/// How a balancer is to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its folder.
    pub run_dir: RunDir,
    /// End when the last guest is gone.
    pub exit_when_idle: bool,
    /// Serve the API over TCP as well, to clients that show the token.
    pub tcp: Option<(SocketAddr, Token)>,
    /// The rule by which a container pays for a frame.
    pub accounting: System,
    /// Knobs of the policy that are given now; the others are as they were turned last.
    pub knobs: KnobsPatch,
    /// Ask the kernel's data access monitor what guests use.
    pub working_sets: bool,
    /// Folder of the images.
    pub store: PathBuf,
    /// What holds the pages of images that guests share.
    pub pool: Backing,
}

/// Runs a balancer to its end.
///
/// # Errors
/// When it cannot start: the run directory is taken, the journal unusable, a socket cannot be bound.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut owned = Owned::take(&options.run_dir)?;
    let guest_places = descriptors::left_for_guests(API_PLACES + TCP_PLACES + IMAGES_OPEN_MAX);
    let (journal, tree, bindings) = Journal::open(&options.run_dir.journal())?;
    owned.has_journal();
    let library = Library::new(&options.store, options.pool);
    let knobs = options.knobs.on(journal.knobs().unwrap_or_default());
    let (accounting, kernel) = (options.accounting, Arc::new(HostKernel));
    let balancer = Arc::new(Balancer::new(journal, (tree, bindings), accounting, library, knobs, kernel));
    balancer.lives_in(options.run_dir.clone());
    let tcp = match &options.tcp {
        Some((address, _)) => {
            Some(TcpListener::bind(address).await.with_context(|| format!("Cannot listen on {address}"))?)
        }
        None => None,
    };
    let places = (API_PLACES, guest_places);
    let sockets = Sockets::bind(owned, options.run_dir.clone(), Arc::clone(&balancer), places)?;
    tracing::info!(dir = %options.run_dir.dir().display(), pid = std::process::id(), "serving");

    if let (Some(listener), Some((address, token))) = (tcp, options.tcp) {
        let service =
            router(Arc::clone(&balancer)).layer(middleware::from_fn_with_state(token, Token::check));
        tracing::info!(%address, "serving over TCP as well");
        tokio::spawn(api::serve(listener, service, Places::new(TCP_PLACES)));
    }
    tokio::spawn(pressure::watch(Arc::clone(&balancer)));
    tokio::spawn(sessions::watch_merge(Arc::clone(&balancer)));
    if options.working_sets {
        tokio::spawn(sessions::watch_working_sets(Arc::clone(&balancer), options.run_dir.clone()));
    }
    tokio::spawn(scan_pool(Arc::clone(&balancer)));
    tokio::spawn(Arc::clone(&balancer).scan_tables());
    tokio::spawn(Arc::clone(&balancer).grant_what_is_freed());
    let ticks = tick(Arc::clone(&balancer), sockets);
    let idle = idle::wait(Arc::clone(&balancer));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(stay(signal(SignalKind::hangup())?));
    let ended = tokio::select! {
        lost = ticks => lost.map_err(Into::into),
        () = idle, if options.exit_when_idle => end_with("no guests are left"),
        _ = terminate.recv() => end_with("SIGTERM"),
        _ = interrupt.recv() => end_with("SIGINT"),
    };
    balancer.ends();
    ended
}

fn end_with(reason: &str) -> anyhow::Result<()> {
    tracing::info!("{reason}");
    Ok(())
}

/// A terminal that closes, or a service manager's reload, does not end a balancer: guests need it, and there is no
/// file to read again.
async fn stay(mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP changes nothing");
    }
}

/// Ticks until the run directory is another balancer's.
async fn tick(balancer: Arc<Balancer>, mut sockets: Sockets) -> Result<(), RunDirError> {
    let mut interval = balancer.watch_interval();
    loop {
        let mut clock = tokio::time::interval(*interval.borrow_and_update());
        // After a pause of the whole process one tick is enough.
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = clock.tick() => {
                    sockets.keep()?;
                    balancer.tick();
                }
                changed = interval.changed() => match changed {
                    Ok(()) => break,
                    // The state goes with the process.
                    Err(_) => return Ok(()),
                },
            }
        }
    }
}

/// Scans the pool again and again, as often as its part of a CPU allows.
async fn scan_pool(balancer: Arc<Balancer>) {
    let interval = balancer.watch_interval();
    loop {
        balancer.keep_granules();
        balancer.keep_domains().await;
        let took = balancer.scan_pool(false).await;
        let interval = *interval.borrow();
        tokio::time::sleep(interval.max(took.saturating_mul(SCAN_CPU_PART))).await;
    }
}
