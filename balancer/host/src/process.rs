//! Ending a process, its limit of descriptors, and what a child does before its program runs.
#![allow(unsafe_code)]

use rustix::process::{Pid, Resource, Rlimit, Signal};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

pub use rustix::process::Signal as SignalNumber;

/// Sends a signal to one process.
///
/// # Errors
/// When there is no such process, or it is of another user. A number below 1, which stands for a group of processes, is
/// refused.
pub fn send_signal(pid: i32, signal: Signal) -> io::Result<()> {
    let pid = (pid > 0).then(|| Pid::from_raw(pid)).flatten().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

/// Ends a process at once (SIGKILL).
///
/// # Errors
/// As [`send_signal`].
pub fn kill(pid: i32) -> io::Result<()> {
    send_signal(pid, Signal::KILL)
}

/// Asks a child to end (SIGTERM).
///
/// # Errors
/// When it was waited for already.
pub fn terminate(child: &Child) -> io::Result<()> {
    send_signal(child.id().cast_signed(), Signal::TERM)
}

/// A descriptor that becomes readable when a process ends (pidfd_open(2), Linux 5.3).
///
/// # Errors
/// When there is no such process, or the kernel is older.
pub fn end_of(pid: i32) -> io::Result<OwnedFd> {
    let pid = (pid > 0).then(|| Pid::from_raw(pid)).flatten().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// The file behind a descriptor, opened again to read: the new one shares neither locks, position nor flags with the
/// old one.
///
/// # Errors
/// When the system refuses.
pub fn reopen(file: &File) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Bounds of the numbers of new descriptors (`RLIMIT_NOFILE`, getrlimit(2)); `u64::MAX` stands for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorLimit {
    /// The bound now.
    pub soft: u64,
    /// The largest bound that this process may set.
    pub hard: u64,
}

impl DescriptorLimit {
    /// The limit of this process.
    #[must_use]
    pub fn get() -> Self {
        let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
        Self { soft: current.unwrap_or(u64::MAX), hard: maximum.unwrap_or(u64::MAX) }
    }

    /// Makes this the limit of this process. Descriptors that are open stay open.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn set(self) -> io::Result<()> {
        let bound = |value| (value != u64::MAX).then_some(value);
        let limit = Rlimit { current: bound(self.soft), maximum: bound(self.hard) };
        Ok(rustix::process::setrlimit(Resource::Nofile, limit)?)
    }
}

/// Unblocks all signals in a child before its program runs: a `vmm` blocks the signals that end it, and a child
/// inherits the blocked ones.
pub fn unblock_signals(command: &mut Command) {
    // SAFETY: between fork and exec only `pthread_sigmask` is called, which is async-signal-safe.
    unsafe { command.pre_exec(crate::signals::unblock_all) };
}

/// What a child that is a machine does before its program runs:
///
/// * It ends with the thread that starts it (`PR_SET_PDEATHSIG`), which has to live as long as the process.
/// * It has no huge pages: QEMU releases guest memory in pages of 4 KiB, which does not free a huge page that they are
///   a part of, and the kernel would fill a huge page next to frames that are in the balloon.
/// * It inherits these descriptors.
pub fn bind_machine(command: &mut Command, inherited: Vec<RawFd>) {
    let parent = rustix::process::getpid();
    let prepare = move || -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            // The parent ended before the line above.
            return Err(io::ErrorKind::Interrupted.into());
        }
        rustix::thread::disable_transparent_huge_pages(true)?;
        for fd in &inherited {
            // SAFETY: the parent holds the descriptor open until the child has started.
            let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, all of them async-signal-safe, and nothing is
    // allocated.
    unsafe { command.pre_exec(prepare) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{PollFd, PollFlags, ready};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;
    use std::time::Duration;

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        command.arg("60").stdin(Stdio::null());
        command
    }

    #[test]
    fn a_process_that_is_killed_ends_and_its_descriptor_says_so() {
        let mut child = sleeper().spawn().unwrap();
        let pid = child.id().cast_signed();
        let end = end_of(pid).unwrap();
        let mut fds = [PollFd::new(&end, PollFlags::IN)];
        assert_eq!(ready(&mut fds, Some(Duration::ZERO)).unwrap(), 0);
        kill(pid).unwrap();
        assert_eq!(ready(&mut fds, None).unwrap(), 1);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        assert!(kill(pid).is_err() && end_of(pid).is_err());
    }

    #[test]
    fn groups_of_processes_get_no_signal() {
        for pid in [0, -1, i32::MIN] {
            assert_eq!(kill(pid).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            assert_eq!(end_of(pid).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_machine_has_no_huge_pages_and_inherits_its_descriptors_alone() {
        use std::os::fd::AsRawFd;
        let (inherited, other) = (File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap());
        let mut command = sleeper();
        bind_machine(&mut command, vec![inherited.as_raw_fd()]);
        let mut child = command.spawn().unwrap();
        let of_child =
            |file: &File| std::fs::read_link(format!("/proc/{}/fd/{}", child.id(), file.as_raw_fd())).ok();
        // The kernel closes one descriptor after the other, and the first may be the one that `spawn` waits for.
        wait::until("the other is closed", &wait::Still, || Ok(of_child(&other)), Option::is_none).unwrap();
        assert_eq!(of_child(&inherited), Some("/dev/null".into()));
        let status: crate::proc::Status = crate::proc::Folder::of(child.id().cast_signed()).read().unwrap();
        assert!(!status.has_huge_pages);
        terminate(&child).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    }
}
