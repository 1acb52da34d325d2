//! Reading the working sets of guests, where the kernel tells ([`crate::damon`]).

use super::session::chain;
use crate::damon::{Damon, DamonError, FILES, WATCHED_MAX, Watched, find_ram};
use crate::engine::Engine;
use protocol::place::Place;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Between two readings. The kernel counts one in [`crate::damon::AGGREGATION`], for which a reading waits.
const READ_EVERY: Duration = Duration::from_secs(4);

/// A guest that is to be watched, or was read: its session, its process, its RAM in bytes.
pub type Watchable = (u64, i32, u64);

/// Reads working sets for ever. Returns where the kernel does not tell: then they are not known.
pub async fn watch(engine: Arc<Engine>, place: Place) {
    let marker = place.dir().join("damon");
    // Nothing is touched before there is somebody to be watched.
    let mut damon: Option<Damon> = None;
    loop {
        tokio::time::sleep(READ_EVERY).await;
        let mut guests = engine.watchable();
        guests.truncate(WATCHED_MAX);
        if damon.is_none() && guests.is_empty() {
            continue;
        }
        let (held, marker) = (damon.take(), marker.clone());
        let read = tokio::task::spawn_blocking(move || read(held, &guests, &marker)).await;
        match read {
            Ok(Ok((held, sets))) => {
                engine.take_working_sets(&sets);
                damon = Some(held);
            }
            Ok(Err(error)) => {
                tracing::info!(error = chain(&error), "working sets of guests are not known");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "reading working sets panicked");
                return;
            }
        }
    }
}

/// Watches these guests, and reads those that were watched already.
fn read(
    held: Option<Damon>,
    guests: &[Watchable],
    marker: &Path,
) -> Result<(Damon, Vec<(u64, u64)>), DamonError> {
    let mut damon = match held {
        Some(damon) => damon,
        None => Damon::open(Path::new(FILES), marker)?,
    };
    let found = |&(session, pid, ram_bytes): &Watchable| {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let (from, to) = find_ram(&maps, ram_bytes)?;
        Some((session, Watched { pid, from, to }))
    };
    let (sessions, watched): (Vec<u64>, Vec<Watched>) = guests.iter().filter_map(found).unzip();
    if damon.watched() == watched {
        // All of its processes may have ended just now.
        let sets = damon.working_sets().unwrap_or_default();
        return Ok((damon, sessions.into_iter().zip(sets).collect()));
    }
    if let Err(error) = damon.watch(watched) {
        // A process may have ended just now: then it is watched without it next time.
        tracing::debug!(error = chain(&error), "DAMON does not watch");
    }
    Ok((damon, vec![]))
}
