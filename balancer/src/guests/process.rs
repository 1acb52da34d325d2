//! What a `vmm` has of the kernel's objects.

use host::proc::Folder;
use protocol::message::MachineProcess;
use std::time::Instant;

/// File descriptors and threads of a process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessObjects {
    /// Open file descriptors.
    pub fds: u32,
    /// Threads.
    pub threads: u32,
    /// When they were counted.
    pub at: Instant,
}

impl ProcessObjects {
    /// Counts those of a `vmm`, and of the process that has the guest's RAM where that is another one, in two system
    /// calls each. `None` when the process is gone.
    #[must_use]
    pub fn of_guest(pid: i32, machine: Option<MachineProcess>) -> Option<Self> {
        let own = Self::count(pid)?;
        let Some(other) = machine.and_then(|machine| Self::count(machine.pid)) else { return Some(own) };
        let (fds, threads) = (own.fds.saturating_add(other.fds), own.threads.saturating_add(other.threads));
        Some(Self { fds, threads, ..own })
    }

    /// Those of one process.
    #[must_use]
    pub fn count(pid: i32) -> Option<Self> {
        let folder = Folder::of(pid);
        let (fds, threads) = (folder.fds().ok()?, folder.threads().ok()?);
        let count = |many: u64| u32::try_from(many).unwrap_or(u32::MAX);
        Some(Self { fds: count(fds), threads: count(threads), at: Instant::now() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn descriptors_and_threads_of_a_process() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // Until the loader has closed the libraries of `sleep`, it has more of them open now and then.
        let syscall = || Ok(std::fs::read_to_string(format!("/proc/{pid}/syscall"))?);
        let sleeps = format!("{} ", libc::SYS_clock_nanosleep);
        let activity = wait::Activity::of(child.id());
        wait::until("it sleeps", &activity, syscall, |call| call.starts_with(&sleeps)).unwrap();
        let listed = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        let counted = ProcessObjects::count(pid).unwrap();
        assert_eq!((counted.fds as usize, counted.threads as usize), (listed("fd"), listed("task")));
        assert!(counted.fds >= 3 && counted.threads == 1, "{counted:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ProcessObjects::count(pid).is_none());
    }
}
