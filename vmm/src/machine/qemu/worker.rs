//! The thread that talks to QEMU's monitor, so that no other thread ever waits for it.
//!
//! ```text
//!   machine --requests--> inbox: only the newest target counts       worker <--QMP--> QEMU
//!           <--updates--- balloon, statistics, stuck, shutdown, closed
//! ```
//!
//! Once a second it asks for the balloon: that is the heartbeat. A command without an answer makes the guest *stuck*:
//! from then on nothing is sent, the worker waits for the late answer, and requests wait in the inbox, which does not
//! grow.
//!
//! Detaching a machine is all or nothing: as long as it does not answer it stays attached, and the worker undoes what
//! it began once the machine answers. The guest takes its time to deflate its balloon, so the worker follows the
//! balloon for a while.

use super::balloon::BalloonObject;
use super::original::Original;
use super::qmp::wire::{Balloon, BlockStats, Cont, QueryBalloon, QueryBlockStats, QueryStatus, Stop};
use super::qmp::{Event, Qmp, QmpError};
use crate::epoll;
use host::wait::{PollFd, PollFlags, ready};
use protocol::bytes::Human;
use protocol::error_chain::chain;
use protocol::message::Statistics;
use protocol::sync::MutexExt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Builder;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Times of a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// How long the worker waits for a late answer before it reads the inbox again.
    pub late_answer: Duration,
    /// How long a machine that is to be detached may be without an answer.
    pub detach_answer: Duration,
    /// How long the worker follows the balloon of a machine that is detached. The balancer waits for 10 s
    /// (`DETACH_DEADLINE` of its attached guests).
    pub detach_follow: Duration,
    /// Between two readings of that balloon.
    pub follow: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            late_answer: Duration::from_millis(500),
            detach_answer: Duration::from_secs(5),
            detach_follow: Duration::from_secs(8),
            follow: Duration::from_millis(100),
        }
    }
}

/// Requests that the worker has not begun.
#[derive(Debug, Default)]
struct Inbox {
    target_bytes: Option<u64>,
    statistics: bool,
    running: Option<bool>,
    /// When the machine was to be detached.
    detach: Option<Instant>,
}

/// A change of the machine.
#[derive(Debug)]
pub(super) enum WorkerUpdate {
    /// RAM less the balloon, as the guest says, bytes.
    Balloon(u64),
    /// A sample that was not reported yet.
    Statistics(Box<Statistics>),
    /// QEMU does not answer, and the reason; `None` once it answers again.
    Stuck(Option<String>),
    /// The machine is about to end, and why in QEMU's words.
    Shutdown(String),
    /// The monitor closed.
    Closed(String),
    /// The machine was detached: with its original settings, or with the reason why not.
    Detached(Result<(), String>),
    /// The machine was not detached, and why: it stays attached.
    NotDetached(String),
}

/// The worker of one machine.
#[derive(Debug)]
pub(super) struct QmpWorker {
    inbox: Arc<Mutex<Inbox>>,
    wake: EventFd,
    updates: Receiver<WorkerUpdate>,
    ready: EventFd,
}

impl QmpWorker {
    /// Starts the thread. `paused_by_us` is true of a machine that was created and waits; `moved` gets the number of
    /// bytes that the disks moved.
    ///
    /// # Errors
    /// When the system has no thread or eventfd.
    pub(super) fn start(
        mut qmp: Qmp,
        balloon: Option<BalloonObject>,
        original: Original,
        paused_by_us: bool,
        moved: Option<Arc<AtomicU64>>,
        times: Times,
    ) -> io::Result<Self> {
        // The event loop takes the signals from here on.
        qmp.watch_nothing();
        let (sender, updates) = channel();
        let (wake, ready) = (EventFd::new(EFD_NONBLOCK)?, EventFd::new(EFD_NONBLOCK)?);
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        let worker = Worker {
            qmp,
            balloon,
            original,
            moved,
            times,
            inbox: Arc::clone(&inbox),
            wake: wake.try_clone()?,
            updates: sender,
            ready: ready.try_clone()?,
            reported_bytes: None,
            target_bytes: None,
            is_polled: false,
            paused_by_us,
            sequence: 0,
        };
        Builder::new().name("qmp".into()).spawn(move || worker.run())?;
        Ok(Self { inbox, wake, updates, ready })
    }

    /// Readable when there are updates.
    pub(super) fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// All updates, oldest first.
    pub(super) fn take(&self) -> Vec<WorkerUpdate> {
        let _ = self.ready.read();
        self.updates.try_iter().collect()
    }

    /// Asks the guest to hold no more than this.
    pub(super) fn set_target(&self, bytes: u64) {
        self.request(|inbox| inbox.target_bytes = Some(bytes));
    }

    /// Resumes the machine, once QEMU has its target, or pauses it. A machine that its user paused stays paused.
    pub(super) fn set_running(&self, running: bool) {
        self.request(|inbox| inbox.running = Some(running));
    }

    /// Asks for a fresh sample of the guest's statistics.
    pub(super) fn sample(&self) {
        self.request(|inbox| inbox.statistics = true);
    }

    /// Restores the original settings of the machine and ends the worker; an update has the result.
    pub(super) fn detach(&self) {
        self.request(|inbox| inbox.detach = inbox.detach.or_else(|| Some(Instant::now())));
    }

    /// As [`Self::detach`], and waits until it is done.
    pub(super) fn detach_within(&self, time: Duration) -> Result<(), String> {
        self.detach();
        let deadline = Instant::now() + time;
        loop {
            match self.updates.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(WorkerUpdate::Detached(result)) => return result,
                Ok(WorkerUpdate::Closed(why) | WorkerUpdate::NotDetached(why)) => return Err(why),
                Ok(_) => {}
                Err(_) => return Err("QEMU does not answer".into()),
            }
        }
    }

    fn request(&self, put: impl FnOnce(&mut Inbox)) {
        put(&mut self.inbox.acquire());
        let _ = self.wake.write(1);
    }
}

struct Worker {
    qmp: Qmp,
    balloon: Option<BalloonObject>,
    original: Original,
    moved: Option<Arc<AtomicU64>>,
    times: Times,
    inbox: Arc<Mutex<Inbox>>,
    wake: EventFd,
    updates: Sender<WorkerUpdate>,
    ready: EventFd,
    /// The balloon that was reported last.
    reported_bytes: Option<u64>,
    /// The last target that was requested.
    target_bytes: Option<u64>,
    /// QEMU polls the guest for statistics as often as this worker wants them.
    is_polled: bool,
    /// The machine is paused because this worker paused it, or never resumed it.
    paused_by_us: bool,
    /// The last sample that was reported.
    sequence: u64,
}

impl Worker {
    fn run(mut self) {
        let mut next_heartbeat = Instant::now();
        loop {
            let requests = std::mem::take(&mut *self.inbox());
            if let Some(asked) = requests.detach {
                match self.detach(asked, &requests) {
                    Some(last) => return self.report(last),
                    None => continue,
                }
            }
            let is_heartbeat = Instant::now() >= next_heartbeat;
            if is_heartbeat {
                next_heartbeat = Instant::now() + self.times.heartbeat;
            }
            match self.serve(&requests, is_heartbeat) {
                Ok(()) => {}
                Err(error) if error.is_end() => return self.report(WorkerUpdate::Closed(chain(&error))),
                Err(error @ QmpError::Deadline { .. }) => {
                    self.request_again(requests.target_bytes, requests.running);
                    if let Err(error) = self.wait_for_late_answer(&error) {
                        return self.report(WorkerUpdate::Closed(chain(&error)));
                    }
                    continue;
                }
                Err(error) => tracing::warn!("{}", chain(&error)),
            }
            if let Err(error) = self.take_events() {
                return self.report(WorkerUpdate::Closed(chain(&error)));
            }
            self.wait(next_heartbeat);
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.acquire()
    }

    /// Puts requests that failed back into the inbox, unless there are newer ones.
    fn request_again(&self, target_bytes: Option<u64>, running: Option<bool>) {
        let mut inbox = self.inbox();
        inbox.target_bytes = inbox.target_bytes.or(target_bytes);
        inbox.running = inbox.running.or(running);
    }

    fn serve(&mut self, requests: &Inbox, is_heartbeat: bool) -> Result<(), QmpError> {
        if let Some(balloon) = self.balloon.as_ref().filter(|_| !self.is_polled) {
            balloon.poll_often(&mut self.qmp)?;
            self.is_polled = true;
        }
        if let Some(value) = requests.target_bytes.filter(|_| self.balloon.is_some()) {
            self.target_bytes = Some(value);
            self.qmp.call(&Balloon { value })?;
        }
        if let Some(running) = requests.running {
            self.set_running(running)?;
        }
        // The balloon comes before a sample, in which it counts.
        if is_heartbeat || requests.statistics {
            match self.qmp.call(&QueryBalloon {}) {
                Ok(balloon) => self.moved_to(balloon.actual),
                // QEMU refuses this for a machine without a balloon, which is an answer.
                Err(QmpError::Refused { .. }) if self.balloon.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        // The balancer asks for statistics once there is a driver, and the first sample shows that there is one.
        if requests.statistics || is_heartbeat && self.sequence == 0 {
            self.take_statistics()?;
        }
        if is_heartbeat && let Some(moved) = &self.moved {
            let stats = self.qmp.call(&QueryBlockStats {})?;
            let bytes = |sum: u64, of: &BlockStats| {
                sum.wrapping_add(of.stats.rd_bytes).wrapping_add(of.stats.wr_bytes)
            };
            moved.store(stats.iter().fold(0, bytes), Relaxed);
        }
        Ok(())
    }

    /// Reports the newest sample of the guest's statistics, once.
    fn take_statistics(&mut self) -> Result<(), QmpError> {
        if let Some(balloon) = &self.balloon
            && let Some(sample) = balloon.statistics(&mut self.qmp)?
            && sample.sequence != self.sequence
        {
            self.sequence = sample.sequence;
            self.report(WorkerUpdate::Statistics(Box::new(sample)));
        }
        Ok(())
    }

    fn set_running(&mut self, running: bool) -> Result<(), QmpError> {
        if running {
            if self.paused_by_us {
                self.qmp.call(&Cont {})?;
                self.paused_by_us = false;
            }
            return Ok(());
        }
        if !self.paused_by_us && !self.qmp.call(&QueryStatus {})?.running {
            // Its user paused it, and resumes it.
            return Ok(());
        }
        // Also if the answer is late.
        self.paused_by_us = true;
        self.qmp.call(&Stop {})?;
        Ok(())
    }

    /// Takes QEMU's events; of the balloon only the newest counts.
    fn take_events(&mut self) -> Result<(), QmpError> {
        let mut actual = None;
        for event in self.qmp.events()? {
            match event {
                Event::BalloonChange { actual: bytes } => actual = Some(bytes),
                Event::Shutdown { reason } => self.report(WorkerUpdate::Shutdown(reason)),
            }
        }
        if let Some(bytes) = actual {
            self.moved_to(bytes);
        }
        Ok(())
    }

    fn moved_to(&mut self, bytes: u64) {
        if self.reported_bytes.replace(bytes) != Some(bytes) {
            self.report(WorkerUpdate::Balloon(bytes));
        }
    }

    /// Waits for the late answer and does nothing else, but a request to detach is refused meanwhile.
    fn wait_for_late_answer(&mut self, late: &QmpError) -> Result<(), QmpError> {
        let late = chain(late);
        self.report(WorkerUpdate::Stuck(Some(late.clone())));
        while !self.qmp.caught_up(Instant::now() + self.times.late_answer)? {
            let mut inbox = self.inbox();
            if inbox.detach.is_some_and(|asked| asked.elapsed() >= self.times.detach_answer) {
                inbox.detach = None;
                drop(inbox);
                self.report(WorkerUpdate::NotDetached(late.clone()));
            }
        }
        self.report(WorkerUpdate::Stuck(None));
        Ok(())
    }

    /// Detaches the machine and returns the last update. `None` if it stopped answering: then all is as before the
    /// request.
    fn detach(&mut self, asked: Instant, requests: &Inbox) -> Option<WorkerUpdate> {
        let paused_by_us = self.paused_by_us;
        match self.restore(asked + self.times.detach_follow) {
            Ok(restored) => Some(WorkerUpdate::Detached(restored)),
            Err(error) if error.is_end() => Some(WorkerUpdate::Closed(chain(&error))),
            Err(error @ QmpError::Deadline { .. }) => {
                // Do this even if `cont` timed out: QEMU will still execute it.
                let running = requests.running.or(paused_by_us.then_some(false));
                self.request_again(requests.target_bytes.or(self.target_bytes), running);
                self.is_polled = false;
                self.report(WorkerUpdate::NotDetached(chain(&error)));
                self.wait_for_late_answer(&error).err().map(|error| WorkerUpdate::Closed(chain(&error)))
            }
            Err(error) => Some(WorkerUpdate::Detached(Err(chain(&error)))),
        }
    }

    /// Restores the original settings of the machine, and follows its balloon on the way there: the next `vmm` that
    /// attaches the machine must not take a value on the way for the original one. Returns what was not reached.
    fn restore(&mut self, until: Instant) -> Result<Result<(), String>, QmpError> {
        let Original { bytes, interval_s, .. } = self.original;
        if let Some(balloon) = &self.balloon {
            self.qmp.call(&Balloon { value: bytes })?;
            balloon.set_interval(&mut self.qmp, interval_s)?;
        }
        self.set_running(true)?;
        while self.balloon.is_some() {
            let actual = self.qmp.call(&QueryBalloon {})?.actual;
            if actual == bytes {
                break;
            }
            if Instant::now() >= until {
                return Ok(Err(format!("it is still at {} of {}", Human(actual), Human(bytes))));
            }
            std::thread::sleep(self.times.follow);
        }
        self.original.is_restored();
        Ok(Ok(()))
    }

    /// Waits for QEMU, a request or the next heartbeat.
    fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = [readable(self.qmp.fd()), readable(epoll::borrow(&self.wake))];
        ready(&mut fds, Some(left)).ok();
        let _ = self.wake.read();
    }

    fn report(&self, update: WorkerUpdate) {
        // The receiver is gone when the process ends.
        let _ = self.updates.send(update);
        let _ = self.ready.write(1);
    }
}

#[cfg(test)]
#[path = "worker_test.rs"]
mod tests;
