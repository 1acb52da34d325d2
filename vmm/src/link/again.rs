//! Registering again after the balancer is gone.
//!
//! On a thread of its own: starting a balancer and waiting for its answer takes seconds, and the guest's devices are
//! served meanwhile.

use super::{Link, ensure_running};
use protocol::frames::FrameTable;
use protocol::message::{Register, ToVmm};
use protocol::place::Place;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Time between two tries.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Whoever started the balancer may start it again within this, a service manager for one; then a guest does it.
const START_AFTER: Duration = Duration::from_secs(3);
/// Time between two tries after a refusal at first, twice as long each time, and at most: another guest has its name, or the
/// balancer is of another version. The guest runs on inside its last target; whoever refused it may be replaced.
const REFUSED_INTERVAL: Duration = Duration::from_millis(250);
const REFUSED_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// A registration under way.
#[derive(Debug)]
pub struct Again {
    ready: EventFd,
    outcome: Receiver<(Link, ToVmm)>,
}

impl Again {
    /// Starts to look for a balancer.
    ///
    /// # Errors
    /// When the system has no thread or eventfd.
    pub fn start(place: Place, register: Register, table: Arc<FrameTable>) -> io::Result<Self> {
        let (sender, outcome) = channel();
        let ready = EventFd::new(EFD_NONBLOCK)?;
        let signal = ready.try_clone()?;
        Builder::new().name("register".into()).spawn(move || {
            // Nobody waits for it when the guest ended meanwhile.
            let _ = sender.send(search(&place, &register, &table));
            let _ = signal.write(1);
        })?;
        Ok(Self { ready, outcome })
    }

    /// Readable when there is an outcome.
    #[must_use]
    pub fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// The link to the balancer that took the guest back, and its answer; once.
    #[must_use]
    pub fn take(&self) -> Option<(Link, ToVmm)> {
        let _ = self.ready.read();
        self.outcome.try_recv().ok()
    }
}

fn search(place: &Place, register: &Register, table: &FrameTable) -> (Link, ToVmm) {
    let started = Instant::now();
    let mut refused_interval = REFUSED_INTERVAL;
    loop {
        match Link::register(&place.guest_socket(), register, table.fd()) {
            Ok((_, ToVmm::Refused { reason })) => {
                tracing::warn!(reason, "The balancer does not take the guest back; it is asked again");
                sleep(refused_interval);
                refused_interval = (refused_interval * 2).min(REFUSED_INTERVAL_MAX);
            }
            Ok(linked) => return linked,
            Err(error) => {
                tracing::debug!(%error, "No balancer yet");
                if started.elapsed() >= START_AFTER
                    && let Err(error) = ensure_running(place)
                {
                    tracing::warn!("{:#}", anyhow::Error::from(error));
                }
                sleep(RETRY_INTERVAL);
            }
        }
    }
}

#[cfg(test)]
#[path = "again_test.rs"]
pub(super) mod tests;
