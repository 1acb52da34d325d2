//! The thread that speaks to QEMU's monitor, so that nobody else ever waits for it.
//!
//! ```text
//!   session --orders--> desk: only the newest target counts       operator <--QMP--> QEMU
//!           <--news---- balloon, statistics, stuck, shutdown, gone
//! ```
//!
//! Once a second it asks for the balloon: that is the heartbeat. A command without an answer makes the guest *stuck*: from
//! then on nothing is sent, the late answer is waited for, and orders wait on the desk, which does not grow.
//!
//! Letting a machine go is all or nothing: as long as it does not answer it stays attached, and what was begun is taken back
//! when it does. What takes its time is the guest, which the balloon is followed by for a while.

use super::balloon::BalloonObject;
use super::found::Found;
use super::qmp::client::COMMAND_DEADLINE;
use super::qmp::wire::{Balloon, Cont, QueryBalloon, QueryBlockStats, QueryStatus, Stop};
use super::qmp::{Event, Qmp, QmpError};
use protocol::bytes::Human;
use protocol::message::Statistics;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Time between two heartbeats.
const TURN: Duration = Duration::from_secs(1);
/// How long a late answer is waited for before the desk is looked at again.
const CATCH_UP: Duration = Duration::from_millis(500);
/// How long a machine that is to be let go may be without an answer.
const LET_GO_ANSWER: Duration = COMMAND_DEADLINE;
/// Until when its balloon is followed from there: the balancer waits for 10 s (`DETACH_DEADLINE` in its `engine/attach.rs`).
const LET_GO_FOLLOW: Duration = Duration::from_secs(8);
/// Time between two looks at that balloon.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// What is to be done.
#[derive(Debug, Default)]
struct Desk {
    target_bytes: Option<u64>,
    statistics: bool,
    running: Option<bool>,
    /// When it was asked for.
    detach: Option<Instant>,
}

/// What there is to tell.
#[derive(Debug)]
pub(super) enum News {
    /// RAM less the balloon, by the guest's word, bytes.
    Balloon(u64),
    /// A sample that was not told of yet.
    Statistics(Box<Statistics>),
    /// QEMU does not answer, and what; or answers again.
    Stuck(Option<String>),
    /// The machine is about to end, and why in QEMU's words.
    Shutdown(String),
    /// The monitor is gone.
    Gone(String),
    /// The machine was left as it was found; or what is not as it was.
    Detached(Result<(), String>),
    /// It was not let go, and why: it stays attached.
    Kept(String),
}

/// The operator of one machine.
#[derive(Debug)]
pub(super) struct Operator {
    desk: Arc<Mutex<Desk>>,
    wake: EventFd,
    news: Receiver<News>,
    ready: EventFd,
}

impl Operator {
    /// Starts the thread. `stands_by_us` is true of a machine that waits to be let run; `moved` gets what the disks move.
    ///
    /// # Errors
    /// When the system has no thread or eventfd.
    pub(super) fn start(
        mut qmp: Qmp,
        balloon: Option<BalloonObject>,
        found: Found,
        stands_by_us: bool,
        moved: Option<Arc<AtomicU64>>,
    ) -> io::Result<Self> {
        // Signals are the event loop's from here on.
        qmp.watch_nothing();
        let (sender, news) = channel();
        let (wake, ready) = (EventFd::new(EFD_NONBLOCK)?, EventFd::new(EFD_NONBLOCK)?);
        let desk = Arc::new(Mutex::new(Desk::default()));
        let worker = Worker {
            qmp,
            balloon,
            found,
            moved,
            desk: Arc::clone(&desk),
            wake: wake.try_clone()?,
            news: sender,
            ready: ready.try_clone()?,
            told_bytes: None,
            target_bytes: None,
            is_asked_often: false,
            stands_by_us,
            sequence: 0,
        };
        Builder::new().name("qmp".into()).spawn(move || worker.run())?;
        Ok(Self { desk, wake, news, ready })
    }

    /// Readable when there are news.
    pub(super) fn ready(&self) -> &EventFd {
        &self.ready
    }

    /// All news, oldest first.
    pub(super) fn take(&self) -> Vec<News> {
        let _ = self.ready.read();
        self.news.try_iter().collect()
    }

    /// Asks the guest to hold no more than this.
    pub(super) fn set_target(&self, bytes: u64) {
        self.order(|desk| desk.target_bytes = Some(bytes));
    }

    /// Lets the machine run, once it was told its target, or has it stand still. One that stands still by somebody else's word does
    /// so whatever is said here.
    pub(super) fn set_running(&self, running: bool) {
        self.order(|desk| desk.running = Some(running));
    }

    /// Asks for a fresh sample of the guest's statistics.
    pub(super) fn sample(&self) {
        self.order(|desk| desk.statistics = true);
    }

    /// Has the machine left as it was found, and ends; or tells why it is kept.
    pub(super) fn detach(&self) {
        self.order(|desk| desk.detach = desk.detach.or_else(|| Some(Instant::now())));
    }

    /// The same, and waits until it is done.
    pub(super) fn leave(&self, within: Duration) -> Result<(), String> {
        self.detach();
        let deadline = Instant::now() + within;
        loop {
            match self.news.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(News::Detached(result)) => return result,
                Ok(News::Gone(why) | News::Kept(why)) => return Err(why),
                Ok(_) => {}
                Err(_) => return Err("QEMU does not answer".into()),
            }
        }
    }

    fn order(&self, put: impl FnOnce(&mut Desk)) {
        put(&mut self.desk.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = self.wake.write(1);
    }
}

struct Worker {
    qmp: Qmp,
    balloon: Option<BalloonObject>,
    found: Found,
    moved: Option<Arc<AtomicU64>>,
    desk: Arc<Mutex<Desk>>,
    wake: EventFd,
    news: Sender<News>,
    ready: EventFd,
    told_bytes: Option<u64>,
    /// The last target that was ordered.
    target_bytes: Option<u64>,
    /// The guest is asked for statistics as often as they are wanted here.
    is_asked_often: bool,
    /// It stands still because it was told to here.
    stands_by_us: bool,
    /// The last sample that was told of.
    sequence: u64,
}

impl Worker {
    fn run(mut self) {
        let mut next_turn = Instant::now();
        loop {
            let orders = std::mem::take(&mut *self.desk());
            if let Some(asked) = orders.detach {
                match self.let_go(asked, &orders) {
                    Some(last) => return self.tell(last),
                    None => continue,
                }
            }
            let is_turn = Instant::now() >= next_turn;
            if is_turn {
                next_turn = Instant::now() + TURN;
            }
            match self.serve(&orders, is_turn) {
                Ok(()) => {}
                Err(error) if error.is_end() => return self.tell(News::Gone(chain(&error))),
                Err(error @ QmpError::Deadline { .. }) => {
                    self.order_again(orders.target_bytes, orders.running);
                    if let Err(error) = self.wait_until_it_answers(&error) {
                        return self.tell(News::Gone(chain(&error)));
                    }
                    continue;
                }
                Err(error) => tracing::warn!("{}", chain(&error)),
            }
            if let Err(error) = self.hear() {
                return self.tell(News::Gone(chain(&error)));
            }
            self.wait(next_turn);
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was not done is done when it answers, unless something newer was ordered.
    fn order_again(&self, target_bytes: Option<u64>, running: Option<bool>) {
        let mut desk = self.desk();
        desk.target_bytes = desk.target_bytes.or(target_bytes);
        desk.running = desk.running.or(running);
    }

    fn serve(&mut self, orders: &Desk, is_turn: bool) -> Result<(), QmpError> {
        if let Some(balloon) = self.balloon.as_ref().filter(|_| !self.is_asked_often) {
            balloon.ask_often(&mut self.qmp)?;
            self.is_asked_often = true;
        }
        if let Some(value) = orders.target_bytes.filter(|_| self.balloon.is_some()) {
            self.target_bytes = Some(value);
            self.qmp.call(&Balloon { value })?;
        }
        if let Some(running) = orders.running {
            self.set_running(running)?;
        }
        // Where the balloon is comes before a sample, in which it counts.
        if is_turn || orders.statistics {
            match self.qmp.call(&QueryBalloon {}) {
                Ok(balloon) => self.moved_to(balloon.actual),
                // A machine without a balloon says so, which is an answer.
                Err(QmpError::Refused { .. }) if self.balloon.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        // Until the guest gave its first, nobody asks: that is how a driver is known to be there.
        if (orders.statistics || is_turn && self.sequence == 0)
            && let Some(balloon) = &self.balloon
            && let Some(sample) = balloon.statistics(&mut self.qmp)?
            && sample.sequence != self.sequence
        {
            self.sequence = sample.sequence;
            self.tell(News::Statistics(Box::new(sample)));
        }
        if is_turn && let Some(moved) = &self.moved {
            let stats = self.qmp.call(&QueryBlockStats {})?;
            let bytes = |sum: u64, of: &super::qmp::wire::BlockStats| {
                sum.wrapping_add(of.stats.rd_bytes).wrapping_add(of.stats.wr_bytes)
            };
            moved.store(stats.iter().fold(0, bytes), Relaxed);
        }
        Ok(())
    }

    fn set_running(&mut self, running: bool) -> Result<(), QmpError> {
        if running {
            if self.stands_by_us {
                self.qmp.call(&Cont {})?;
                self.stands_by_us = false;
            }
            return Ok(());
        }
        if !self.stands_by_us && !self.qmp.call(&QueryStatus {})?.running {
            // Its user had it stand still, and lets it go on.
            return Ok(());
        }
        // Also if the answer is late.
        self.stands_by_us = true;
        self.qmp.call(&Stop {})?;
        Ok(())
    }

    /// Hears what QEMU says by itself: of the balloon the newest.
    fn hear(&mut self) -> Result<(), QmpError> {
        let mut actual = None;
        for event in self.qmp.events()? {
            match event {
                Event::BalloonChange { actual: bytes } => actual = Some(bytes),
                Event::Shutdown { reason } => self.tell(News::Shutdown(reason)),
            }
        }
        if let Some(bytes) = actual {
            self.moved_to(bytes);
        }
        Ok(())
    }

    fn moved_to(&mut self, bytes: u64) {
        if self.told_bytes.replace(bytes) != Some(bytes) {
            self.tell(News::Balloon(bytes));
        }
    }

    /// Waits for the late answer, and for nothing else: also who wants the machine let go is told that it does not answer.
    fn wait_until_it_answers(&mut self, late: &QmpError) -> Result<(), QmpError> {
        let late = chain(late);
        self.tell(News::Stuck(Some(late.clone())));
        while !self.qmp.caught_up(Instant::now() + CATCH_UP)? {
            let mut desk = self.desk();
            if desk.detach.is_some_and(|asked| asked.elapsed() >= LET_GO_ANSWER) {
                desk.detach = None;
                drop(desk);
                self.tell(News::Kept(late.clone()));
            }
        }
        self.tell(News::Stuck(None));
        Ok(())
    }

    /// Lets the machine go: the last news of it. `None` if it stopped answering: then it is as if nobody had asked.
    fn let_go(&mut self, asked: Instant, orders: &Desk) -> Option<News> {
        let stood_by_us = self.stands_by_us;
        match self.put_back(asked + LET_GO_FOLLOW) {
            Ok(left) => Some(News::Detached(left)),
            Err(error) if error.is_end() => Some(News::Gone(chain(&error))),
            Err(error @ QmpError::Deadline { .. }) => {
                // Also if `cont` is what has no answer: it is obeyed late.
                let running = orders.running.or(stood_by_us.then_some(false));
                self.order_again(orders.target_bytes.or(self.target_bytes), running);
                self.is_asked_often = false;
                self.tell(News::Kept(chain(&error)));
                self.wait_until_it_answers(&error).err().map(|error| News::Gone(chain(&error)))
            }
            Err(error) => Some(News::Detached(Err(chain(&error)))),
        }
    }

    /// Leaves the machine as it was found, and follows its balloon on the way there: whoever attaches it next must not take for found
    /// what is passed by. Returns what it did not come to.
    fn put_back(&mut self, until: Instant) -> Result<Result<(), String>, QmpError> {
        let Found { bytes, interval_s, .. } = self.found;
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
                return Ok(Err(format!("it is at {} of {} still", Human(actual), Human(bytes))));
            }
            std::thread::sleep(FOLLOW_EVERY);
        }
        self.found.is_put_back();
        Ok(Ok(()))
    }

    /// Waits for QEMU, an order or the next turn.
    fn wait(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let fds: [RawFd; 2] = [self.qmp.fd().as_raw_fd(), self.wake.as_raw_fd()];
        let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        let timeout = libc::c_int::try_from(left.as_millis()).unwrap_or(libc::c_int::MAX).saturating_add(1);
        // SAFETY: an array of that length; descriptors that live as long as `self`.
        unsafe { libc::poll(polled.as_mut_ptr(), 2, timeout) };
        let _ = self.wake.read();
    }

    fn tell(&self, news: News) {
        // Nobody listens any more when the process ends.
        let _ = self.news.send(news);
        let _ = self.ready.write(1);
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
#[path = "operator_test.rs"]
mod tests;
