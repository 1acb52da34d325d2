//! Reading the working sets of guests, where the kernel has them ([`host::damon`]).

use super::session::chain;
use crate::guests::{GuestSeq, Watchable};
use crate::state::Balancer;
use host::damon::{Damon, DamonError, FILES, WATCHED_MAX, Watched, find_ram};
use protocol::run_dir::RunDir;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Between two readings. The kernel counts one in [`host::damon::AGGREGATION`], for which a reading waits.
const READ_EVERY: Duration = Duration::from_secs(4);

/// Reads working sets for ever. Returns where the kernel does not have them: then they are not known.
pub async fn watch(balancer: Arc<Balancer>, run_dir: RunDir) {
    let marker = run_dir.dir().join("damon");
    // The kernel is not asked before there is a guest to be watched.
    let mut damon: Option<Damon> = None;
    loop {
        tokio::time::sleep(READ_EVERY).await;
        let mut guests = balancer.watchable();
        guests.truncate(WATCHED_MAX);
        if damon.is_none() && guests.is_empty() {
            continue;
        }
        let (held, marker) = (damon.take(), marker.clone());
        let read = tokio::task::spawn_blocking(move || read(held, &guests, &marker)).await;
        match read {
            Ok(Ok((held, sets))) => {
                balancer.take_working_sets(&sets);
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
) -> Result<(Damon, Vec<(GuestSeq, u64)>), DamonError> {
    let mut damon = match held {
        Some(damon) => damon,
        None => Damon::open(Path::new(FILES), marker)?,
    };
    let found = |&(seq, pid, ram_bytes): &Watchable| {
        let maps = host::proc::Folder::of(pid).maps().ok()?;
        let (from, to) = find_ram(&maps, ram_bytes)?;
        Some((seq, Watched { pid, from, to }))
    };
    let (guests, watched): (Vec<GuestSeq>, Vec<Watched>) = guests.iter().filter_map(found).unzip();
    if damon.watched() == watched {
        // All of its processes may have ended just now.
        let sets = damon.working_sets().unwrap_or_default();
        return Ok((damon, guests.into_iter().zip(sets).collect()));
    }
    if let Err(error) = damon.watch(watched) {
        // A process may have ended just now: then it is watched without it next time.
        tracing::debug!(error = chain(&error), "DAMON does not watch");
    }
    Ok((damon, vec![]))
}
