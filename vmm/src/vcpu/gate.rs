//! Where paused vCPUs wait: `oom_policy` may pause a guest until its host has memory again.
//!
//! A vCPU checks the gate before each `KVM_RUN`, in the order of `kick`: clear `immediate_exit`, check, run. A thread
//! that closes the gate kicks every vCPU out of the guest. Devices are served meanwhile: requests that the guest made
//! before the pause are done.

use super::kick;
use protocol::sync::MutexExt;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A gate that all vCPUs of a guest go through.
#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicBool,
    /// Threads that go through it. A thread leaves under the lock, so a thread that is gone is never kicked.
    threads: Mutex<BTreeSet<libc::pthread_t>>,
    opened: Condvar,
}

/// While it lives, its thread goes through the gate.
#[derive(Debug)]
pub struct Passing<'a>(&'a Gate, libc::pthread_t);

impl Gate {
    /// Lets the calling thread go through, from now on.
    pub fn enter(&self) -> Passing<'_> {
        let thread = kick::current_thread();
        self.threads().insert(thread);
        Passing(self, thread)
    }

    /// Pauses vCPUs from now on, or resumes them.
    pub fn set_closed(&self, closed: bool) {
        let threads = self.threads();
        self.closed.store(closed, SeqCst);
        if closed {
            // The lock is held: none of them has left.
            threads.iter().for_each(|thread| kick::kick_thread(*thread));
        } else {
            self.opened.notify_all();
        }
    }

    /// Waits while it is closed.
    pub fn pass(&self) {
        if !self.closed.load(SeqCst) {
            return;
        }
        let mut threads = self.threads();
        while self.closed.load(SeqCst) {
            threads = self.opened.wait(threads).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn threads(&self) -> MutexGuard<'_, BTreeSet<libc::pthread_t>> {
        self.threads.acquire()
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.0.threads().remove(&self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::atomic::AtomicU64;
    use std::sync::{Arc, mpsc};
    use wait::Still;

    #[test]
    fn a_thread_at_a_closed_gate_waits_until_it_is_open() {
        kick::install().unwrap();
        let (gate, turns) = (Arc::new(Gate::default()), Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let (found, path) = mpsc::channel();
        let thread = {
            let (gate, turns, stop) = (Arc::clone(&gate), Arc::clone(&turns), Arc::clone(&stop));
            std::thread::spawn(move || {
                let own = std::fs::read_link("/proc/thread-self").unwrap();
                found.send(Path::new("/proc").join(own)).unwrap();
                let _passing = gate.enter();
                while !stop.load(SeqCst) {
                    gate.pass();
                    turns.fetch_add(1, SeqCst);
                }
            })
        };
        let runs = || {
            let before = turns.load(SeqCst);
            wait::until("the thread runs", &Still, || Ok(turns.load(SeqCst)), |now| *now > before).unwrap();
        };
        // A thread that goes through the gate spins.
        let stat = path.recv().unwrap().join("stat");
        let is_asleep = || Ok(std::fs::read_to_string(&stat)?.contains(") S "));
        runs();
        for _ in 0..3 {
            gate.set_closed(true);
            // After the turn that is under way it comes to the closed gate.
            wait::until("the thread waits", &Still, is_asleep, |asleep| *asleep).unwrap();
            let before = turns.load(SeqCst);
            for _ in 0..100 {
                // Woken without reason, it waits again.
                gate.opened.notify_all();
                std::thread::yield_now();
            }
            wait::until("the thread waits again", &Still, is_asleep, |asleep| *asleep).unwrap();
            assert_eq!(turns.load(SeqCst), before, "it went through a closed gate");
            gate.set_closed(false);
            runs();
        }
        stop.store(true, SeqCst);
        thread.join().unwrap();
        // There is no thread left to kick.
        gate.set_closed(true);
    }
}
