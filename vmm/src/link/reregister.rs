//! Registering again after the balancer is gone.
//!
//! On a thread of its own: starting a balancer and waiting for its answer takes seconds, and the guest's devices are
//! served meanwhile.

use super::{Link, ensure_running};
use protocol::frames::FrameTable;
use protocol::message::{Register, ToVmm};
use protocol::run_dir::RunDir;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Time between two tries.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// A guest starts a balancer after this time. Before, a service manager may start it again, for example.
const START_AFTER: Duration = Duration::from_secs(3);
/// Time until the first retry after a refusal, and the longest such time; it doubles with each refusal. Another guest
/// may have the name, or the balancer may be of another version. The guest runs on inside its last target; another
/// balancer may replace the one that refused.
const REFUSED_INTERVAL: Duration = Duration::from_millis(250);
const REFUSED_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// The time as the search sees it.
pub(super) trait Clock: Send + 'static {
    /// The time now.
    fn now(&self) -> Instant;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// The time of this host.
pub(super) struct HostClock;

impl Clock for HostClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// A registration under way.
#[derive(Debug)]
pub(super) struct Reregistration {
    ready: EventFd,
    outcome: Receiver<(Link, ToVmm)>,
}

impl Reregistration {
    /// Starts to look for a balancer.
    ///
    /// # Errors
    /// When the system has no thread or eventfd.
    pub(super) fn start(
        run_dir: RunDir,
        register: Register,
        table: Arc<FrameTable>,
        clock: impl Clock,
    ) -> io::Result<Self> {
        let (sender, outcome) = channel();
        let ready = EventFd::new(EFD_NONBLOCK)?;
        let signal = ready.try_clone()?;
        Builder::new().name("register".into()).spawn(move || {
            // The receiver is gone if the guest ended meanwhile.
            let _ = sender.send(search(&run_dir, &register, &table, &clock));
            let _ = signal.write(1);
        })?;
        Ok(Self { ready, outcome })
    }

    /// Readable when there is an outcome.
    pub(super) fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// The link to the balancer that admitted the guest again, and its answer; once.
    pub(super) fn take(&self) -> Option<(Link, ToVmm)> {
        let _ = self.ready.read();
        self.outcome.try_recv().ok()
    }
}

/// Tries until a balancer admits the guest.
fn search(run_dir: &RunDir, register: &Register, table: &FrameTable, clock: &impl Clock) -> (Link, ToVmm) {
    let started = clock.now();
    let mut refused_interval = REFUSED_INTERVAL;
    loop {
        match Link::register(&run_dir.guest_socket(), register, table.fd()) {
            Ok((_, ToVmm::Refused { reason })) => {
                tracing::warn!(reason, "The balancer does not admit the guest again; retrying");
                clock.sleep(refused_interval);
                refused_interval = (refused_interval * 2).min(REFUSED_INTERVAL_MAX);
            }
            Ok(linked) => return linked,
            Err(error) => {
                tracing::debug!(%error, "No balancer yet");
                if clock.now().saturating_duration_since(started) >= START_AFTER
                    && let Err(error) = ensure_running(run_dir)
                {
                    tracing::warn!("{:#}", anyhow::Error::from(error));
                }
                clock.sleep(RETRY_INTERVAL);
            }
        }
    }
}

#[cfg(test)]
#[path = "reregister_test.rs"]
pub(super) mod tests;
