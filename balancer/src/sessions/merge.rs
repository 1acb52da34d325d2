//! Scans of what the kernel merges: when a guest asks for it, and again and again while a guest has it.

use super::session::chain;
use crate::state::Balancer;
use host::ksm::{Ksm, Mergeable};
use protocol::message::Register;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// The longest that a scan of all processes may take: a guest that registers waits for it.
const SCAN_MAX: Duration = Duration::from_secs(3);
/// A process may delay the scan that reads it: a guest waits no longer than this, once for the scan before and once
/// for its own, and no other scan runs meanwhile. A `vmm` waits for 10 s.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// The time between two scans for other processes that are merged.
const WATCH_EVERY: Duration = Duration::from_secs(30);
/// Watching may take one part in this many of a CPU.
const WATCH_CPU_PART: u32 = 100;

/// One scan at a time: at most one thread is delayed by a process.
static SCANNING: Mutex<()> = Mutex::const_new(());

/// Whether a guest that registers may have its RAM merged.
pub(super) async fn check(balancer: &Balancer, about: &Register, pid: i32) -> Result<(), String> {
    // A guest that comes back is merged already; its domain is checked as for any guest, and the watch finds strangers.
    if !about.merge || about.comes_back {
        return Ok(());
    }
    let refused = |reason: String| format!("merge is refused: {reason}");
    let known: Vec<i32> = processes(balancer).chain([pid]).collect();
    let found = scan().await.map_err(refused)?;
    balancer.check_merge(about, &known, &found)
}

/// Processes of guests that are merged now.
fn processes(balancer: &Balancer) -> impl Iterator<Item = i32> {
    balancer.merging().into_iter().map(|(_, pid)| pid)
}

/// All mergeable processes of the host, if KSM is as it must be.
async fn scan() -> Result<Vec<Mergeable>, String> {
    blocking(|| {
        let ksm = Ksm::default();
        ksm.check_settings()?;
        ksm.mergeable(SCAN_MAX)
    })
    .await?
    .map_err(|error| chain(&error))
}

/// Work that another process may delay.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let silent =
        |_| format!("A process of this host delayed the scan of all processes for {} s", WAIT_MAX.as_secs());
    let permit = timeout(WAIT_MAX, SCANNING.lock()).await.map_err(silent)?;
    let done = tokio::task::spawn_blocking(move || {
        // Held until the work is done, also when the caller no longer waits for it.
        let _permit = permit;
        work()
    });
    timeout(WAIT_MAX, done).await.map_err(silent)?.map_err(|error| error.to_string())
}

/// Reads what is merged of guests, and reports other processes that are merged.
pub async fn watch(balancer: Arc<Balancer>) {
    let interval = balancer.watch_interval();
    let mut watch_at = Instant::now();
    loop {
        let mut pause = *interval.borrow();
        let merging = balancer.merging();
        if !merging.is_empty() {
            let started = Instant::now();
            let read = blocking(move || {
                let ksm = Ksm::default();
                merging
                    .into_iter()
                    .filter_map(|(session, pid)| Some((session, ksm.merged(pid)?)))
                    .collect::<Vec<_>>()
            });
            if let Ok(readings) = read.await {
                balancer.take_merged(&readings);
            }
            pause = pause.max(started.elapsed().saturating_mul(WATCH_CPU_PART));
        }
        if Instant::now() >= watch_at {
            let started = Instant::now();
            let known: Vec<i32> = processes(&balancer).collect();
            let found = if known.is_empty() { Ok(vec![]) } else { scan().await };
            balancer.watch_merge(&known, found);
            watch_at = Instant::now() + WATCH_EVERY.max(started.elapsed().saturating_mul(WATCH_CPU_PART));
        }
        tokio::time::sleep(pause).await;
    }
}
