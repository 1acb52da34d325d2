//! SIGINT, SIGTERM and SIGHUP as events: no handler runs anywhere but in the vCPU kick.

use crate::epoll::watch_raw;
use crate::vcpu::End;
use event_manager::{EventOps, Events, MutEventSubscriber};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc::Sender;

const ENDING: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Blocks the signals that end this process, for this thread and all that it starts, and makes them readable.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    end: Sender<End>,
}

impl Signals {
    /// To be called before any thread starts.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn new(end: Sender<End>) -> io::Result<Self> {
        let ending: Vec<_> = ENDING.into_iter().filter(|number| !is_nohup(*number)).collect();
        let set = vmm_sys_util::signal::create_sigset(&ending)?;
        // SAFETY: valid pointers to an initialized set; results are checked.
        let fd = unsafe {
            if libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor without another owner.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, end })
    }
}

/// True for SIGHUP if this process was started with it ignored (`nohup`): a signal that is read would not be ignored.
fn is_nohup(number: libc::c_int) -> bool {
    // SAFETY: zeroed is a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only reads, with a valid pointer; the result is checked.
    let is_read = unsafe { libc::sigaction(number, std::ptr::null(), &raw mut action) } == 0;
    number == libc::SIGHUP && is_read && action.sa_sigaction == libc::SIG_IGN
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
        // SAFETY: all zero is a valid value of this plain struct.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        // SAFETY: the buffer is as long as we say.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut info).cast(), size_of_val(&info)) };
        let whole = usize::try_from(read) == Ok(size_of_val(&info));
        whole.then(|| i32::try_from(info.ssi_signo).unwrap_or(libc::SIGTERM))
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
