//! A thread that compares the frame table with the kernel's page map: on request, and on its own within a CPU budget.

use crate::memory::{Pagemap, Ram, Reconciled, reconcile};
use protocol::frames::FrameTable;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// A pass costs at most this share of one CPU: the pause is this many times the pass.
const PAUSE_PER_PASS: u32 = 99;
/// Least pause between passes that nobody asked for.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The reconciling thread. It ends when this handle is dropped.
#[derive(Debug)]
pub struct Reconciler {
    requests: SyncSender<()>,
    done: EventFd,
    last: Arc<Mutex<Option<Reconciled>>>,
}

impl Reconciler {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread or the page map is not there.
    pub fn start(ram: Arc<Ram>, table: Arc<FrameTable>) -> io::Result<Self> {
        let (requests, inbox) = sync_channel(1);
        let done = EventFd::new(EFD_NONBLOCK)?;
        let signal = done.try_clone()?;
        let last = Arc::new(Mutex::new(None));
        let result = Arc::clone(&last);
        let pagemap = Pagemap::open()?;
        Builder::new().name("reconciler".into()).spawn(move || {
            run(&inbox, || match reconcile(&ram, &table, &pagemap) {
                Ok(pass) => {
                    *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass);
                    let _ = signal.write(1);
                    pass.took
                }
                Err(error) => {
                    tracing::warn!(%error, "Cannot read the page map");
                    PAUSE_MIN
                }
            });
        })?;
        Ok(Self { requests, done, last })
    }

    /// Asks for a pass now. Requests that come while one is waiting are the same request.
    pub fn request(&self) {
        match self.requests.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => tracing::error!("The reconciler is gone"),
        }
    }

    /// Readable when a pass is done.
    #[must_use]
    pub fn done(&self) -> &EventFd {
        &self.done
    }

    /// The newest pass, once.
    #[must_use]
    pub fn take(&self) -> Option<Reconciled> {
        let _ = self.done.read();
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn run(inbox: &Receiver<()>, mut pass: impl FnMut() -> Duration) {
    let mut pause = PAUSE_MIN;
    loop {
        match inbox.recv_timeout(pause) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => pause = (pass() * PAUSE_PER_PASS).max(PAUSE_MIN),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
