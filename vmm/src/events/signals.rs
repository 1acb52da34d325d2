//! SIGINT, SIGTERM and SIGHUP as events: no handler runs anywhere but in the vCPU kick.

use crate::epoll::watch_raw;
use crate::vcpu::End;
use event_manager::{EventOps, Events, MutEventSubscriber};
use host::signals::{SignalFd, is_ignored};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::mpsc::Sender;

const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Blocks the signals that end this process, for this thread and all that it starts, and makes them readable.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    end: Sender<End>,
}

impl Signals {
    /// To be called before any thread starts.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn new(end: Sender<End>) -> io::Result<Self> {
        let ending: Vec<_> = ENDING.into_iter().filter(|number| !is_nohup(*number)).collect();
        Ok(Self { fd: SignalFd::block(&ending)?, end })
    }
}

/// True for SIGHUP if this process was started with it ignored (`nohup`): a signal that is read would not be ignored.
fn is_nohup(number: libc::c_int) -> bool {
    number == libc::SIGHUP && is_ignored(number)
}

impl Signals {
    /// A descriptor that is readable while a signal is pending.
    ///
    /// # Errors
    /// When the system has no descriptor.
    pub fn ready(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Takes the pending signal, if there is one.
    #[must_use]
    pub fn take(&self) -> Option<i32> {
        self.fd.take()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl MutEventSubscriber for Signals {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        if let Some(number) = self.take() {
            let _ = self.end.send(End::Signal(number));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch_raw(ops, self.fd.as_raw_fd(), 0);
    }
}
