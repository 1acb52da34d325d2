//! Signals: blocked and read as events (signalfd(2)), or ignored.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Signals that are blocked for this thread and all threads that it starts, and are read here instead.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks these signals. To be called before any other thread starts.
    ///
    /// # Errors
    /// When the system refuses, or a number is not a signal.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals)?;
        set_mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: a valid pointer to an initialized set; the result is checked.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor without another owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal, if one came.
    #[must_use]
    pub fn take(&self) -> Option<i32> {
        const BYTES: usize = size_of::<libc::signalfd_siginfo>();
        let mut info = [0u8; BYTES];
        let whole = rustix::io::read(&self.0, &mut info) == Ok(BYTES);
        // `ssi_signo` is the first field.
        let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        whole.then(|| i32::try_from(number).unwrap_or(libc::SIGTERM))
    }

    /// A second descriptor of it, readable while a signal waits.
    ///
    /// # Errors
    /// When the system has no descriptor.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// True if this process ignores a signal: as `nohup` makes it ignore SIGHUP before it starts a program.
#[must_use]
pub fn is_ignored(number: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only asks, with a valid pointer.
    let asked = unsafe { libc::sigaction(number, ptr::null(), action.as_mut_ptr()) } == 0;
    // SAFETY: all zero is a valid action, and the call fills it.
    asked && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Ignores SIGXFSZ: a write beyond the limit of a file's length (RLIMIT_FSIZE) is an error, not the end of the process.
pub fn ignore_file_size_limit() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Unblocks all signals. Async-signal-safe.
pub(crate) fn unblock_all() -> io::Result<()> {
    set_mask(libc::SIG_SETMASK, &set_of(&[])?)
}

fn set_of(signals: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a valid pointer to a set, which the call initializes.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for number in signals {
        // SAFETY: a valid pointer to an initialized set; the result is checked.
        if unsafe { libc::sigaddset(set.as_mut_ptr(), *number) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: `sigemptyset` initialized it.
    Ok(unsafe { set.assume_init() })
}

fn set_mask(how: i32, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: a valid pointer to an initialized set; the old one is not asked for.
    match unsafe { libc::pthread_sigmask(how, set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::Signal;

    #[test]
    fn a_blocked_signal_is_read_once() {
        let signals = SignalFd::block(&[libc::SIGUSR2]).unwrap();
        assert_eq!(signals.take(), None);
        // To this thread: others of the test program have not blocked it.
        let thread = rustix::thread::gettid();
        // SAFETY: SIGUSR2 is blocked in this thread.
        unsafe { libc::syscall(libc::SYS_tkill, thread.as_raw_nonzero().get(), Signal::USR2.as_raw()) };
        assert_eq!((signals.take(), signals.take()), (Some(libc::SIGUSR2), None));
        assert!(SignalFd::block(&[-1]).is_err());
    }

    #[test]
    fn an_ignored_signal_is_known() {
        assert!(!is_ignored(libc::SIGXFSZ));
        ignore_file_size_limit();
        assert!(is_ignored(libc::SIGXFSZ) && !is_ignored(-1));
    }
}
