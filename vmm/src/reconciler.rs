//! A thread that keeps the frame table true: on request, and on its own within a CPU budget.
//!
//! ```text
//!   every second   the kernel's total (O(1)) -> published as the table's error
//!                  it moved, and the budget is open -> a pass over the blocks where something may have been touched
//!   on request     a full pass; the budget pays for it, so that the next ones of its own come later
//!   disk cache     looked at when the disks moved bytes and the budget is open; dropped on request, a part per turn
//!   another payer  a pass over those blocks, then the table's owner changes: what was touched before is charged as it was
//! ```
//!
//! A guest that wants another payer waits until the budget is open. All frames get their owner on this thread, so that
//! none is charged by an order that is over.
//!
//! A guest that touches nothing costs a look at the total a second, some microseconds, and no pass.

mod own;

use crate::budget::{Budget, thread_cpu};
use crate::disk_cache::{DiskCache, Reading};
use crate::memory::{Comparison, Images, Pagemap, Pass, Ram, Reconciled};
use own::OwnMemory;
use protocol::disk::KeepCached;
use protocol::frames::FrameTable;
use protocol::message::RECONCILE_CPU_PPM;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::AcqRel, Ordering::Relaxed, Ordering::Release};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Time between two looks at the kernel's total.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How it is noticed what the kernel did, without looking at each frame.
pub trait Watch: Send {
    /// Publishes the table's error as of now, and says which pass is worth its cost.
    fn check(&mut self, table: &FrameTable) -> Option<Pass>;
    /// A pass begins.
    fn begin(&mut self);
    /// It is over: the table is as the kernel was since it began. Publishes the error.
    fn passed(&mut self, table: &FrameTable);
}

/// Another payer for what is touched from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payer {
    /// The balancer's order.
    pub order: u64,
    /// Owner id of who pays.
    pub owner: u16,
    /// True if that one pays for all that the guest holds as well.
    pub with_charges: bool,
    /// True if the guest wanted it: then it waits for the budget.
    pub by_guest: bool,
}

/// A payer that was put in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InPlace {
    /// The balancer's order.
    pub order: u64,
    /// Frames that somebody else paid for before.
    pub moved_frames: u64,
}

/// What was done since it was last asked for.
#[derive(Debug, Default)]
pub struct Done {
    /// The newest pass that was asked for.
    pub pass: Option<Reconciled>,
    /// Payers, in their order.
    pub payers: Vec<InPlace>,
    /// The newest look at the page cache of the disks.
    pub disk_cache: Option<Reading>,
}

impl Done {
    /// Takes what was done after it.
    fn extend(&mut self, later: Self) {
        self.pass = later.pass.or(self.pass);
        self.payers.extend(later.payers);
        self.disk_cache = later.disk_cache.or(self.disk_cache.take());
    }

    fn is_empty(&self) -> bool {
        self.pass.is_none() && self.payers.is_empty() && self.disk_cache.is_none()
    }
}

/// What is asked of the thread, and what it did.
#[derive(Debug, Default)]
struct Desk {
    compare: AtomicBool,
    payers: Mutex<Vec<Payer>>,
    /// What may stay of the page cache of the disks, told last.
    keep: Mutex<Vec<KeepCached>>,
    done: Mutex<Done>,
}

/// The reconciling thread. It ends when this handle is dropped.
#[derive(Debug)]
pub struct Reconciler {
    requests: SyncSender<()>,
    share_ppm: Arc<AtomicU32>,
    done: EventFd,
    desk: Arc<Desk>,
}

impl Reconciler {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread or the page map is not there.
    pub fn start(
        ram: Arc<Ram>,
        images: Arc<Images>,
        table: Arc<FrameTable>,
        disks: DiskCache,
    ) -> io::Result<Self> {
        let comparison = Comparison::new(Arc::clone(&ram), Arc::clone(&table), Pagemap::open()?)
            .with_images(Arc::clone(&images));
        Self::watching(comparison, Box::new(OwnMemory::open(ram, images)?), table, disks)
    }

    /// Starts the thread for memory that is watched like this.
    ///
    /// # Errors
    /// When the system has no thread.
    pub fn watching(
        comparison: Comparison,
        watch: Box<dyn Watch>,
        table: Arc<FrameTable>,
        disks: DiskCache,
    ) -> io::Result<Self> {
        let (requests, inbox) = sync_channel(1);
        let done = EventFd::new(EFD_NONBLOCK)?;
        let share_ppm = Arc::new(AtomicU32::new(RECONCILE_CPU_PPM));
        let desk = Arc::new(Desk::default());
        let worker = Worker {
            comparison,
            watch,
            table,
            budget: Budget::new(Instant::now()),
            share_ppm: Arc::clone(&share_ppm),
            started: Instant::now(),
            desk: Arc::clone(&desk),
            disks,
            waiting: Vec::new(),
        };
        let signal = done.try_clone()?;
        Builder::new().name("reconciler".into()).spawn(move || worker.run(&inbox, &signal))?;
        Ok(Self { requests, share_ppm, done, desk })
    }

    /// Asks for a pass now. Requests that come while one is waiting are the same request.
    pub fn request(&self) {
        self.desk.compare.store(true, Release);
        self.wake();
    }

    /// Puts another payer in place, once what was touched before is charged as it was.
    pub fn pay(&self, payer: Payer) {
        self.desk.payers.lock().unwrap_or_else(PoisonError::into_inner).push(payer);
        self.wake();
    }

    /// Keeps no more than this of the disks' page cache. What was asked for before and is not begun is forgotten.
    pub fn keep_cached(&self, files: Vec<KeepCached>) {
        *self.desk.keep.lock().unwrap_or_else(PoisonError::into_inner) = files;
        self.wake();
    }

    fn wake(&self) {
        match self.requests.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => tracing::error!("The reconciler is gone"),
        }
    }

    /// Share of one CPU that this guest may cost from now on, parts per million.
    pub fn set_share(&self, share_ppm: u32) {
        self.share_ppm.store(share_ppm, Relaxed);
    }

    /// Readable when something that was asked for is done.
    #[must_use]
    pub fn done(&self) -> &EventFd {
        &self.done
    }

    /// What was done, once.
    #[must_use]
    pub fn take(&self) -> Done {
        let _ = self.done.read();
        std::mem::take(&mut *self.desk.done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Worker {
    table: Arc<FrameTable>,
    comparison: Comparison,
    watch: Box<dyn Watch>,
    budget: Budget,
    share_ppm: Arc<AtomicU32>,
    started: Instant,
    desk: Arc<Desk>,
    disks: DiskCache,
    /// Payers that are not in place yet.
    waiting: Vec<Payer>,
}

impl Worker {
    fn run(mut self, inbox: &Receiver<()>, signal: &EventFd) {
        let mut pause = CHECK_EVERY;
        loop {
            match inbox.recv_timeout(pause) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let before = thread_cpu();
            self.table.tick(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
            self.budget.set_share(self.share_ppm.load(Relaxed), Instant::now());
            let asked = self.desk.compare.swap(false, AcqRel);
            let payers = self.payers_due();
            let wanted = match (asked, payers.is_empty()) {
                (true, _) => Some(Pass::Full),
                (false, false) => Some(Pass::Touched),
                (false, true) => self.watch.check(&self.table),
            };
            let checked = thread_cpu() - before;
            let called = asked || !payers.is_empty();
            let mut done = Done::default();
            if let Some(pass) = wanted
                && (called || self.budget.is_open(Instant::now()))
            {
                let pass = self.pass(pass);
                done = Done { pass: pass.filter(|_| asked), payers: self.put_in_place(&payers), ..done };
            }
            self.budget.spend(thread_cpu() - before);
            // Nobody waits behind a slow disk for what is done already.
            self.tell(done, signal);
            let before = thread_cpu();
            let disk_cache = self.disk_cache();
            self.tell(Done { disk_cache, ..Done::default() }, signal);
            self.budget.spend(thread_cpu() - before);
            pause = self.budget.pause_after(checked, CHECK_EVERY);
            if self.disks.is_dropping() {
                pause = Duration::ZERO;
            }
            if !self.waiting.is_empty() {
                pause = pause.min(self.budget.opens_in(Instant::now()));
            }
        }
    }

    fn tell(&self, done: Done, signal: &EventFd) {
        if !done.is_empty() {
            self.desk.done.lock().unwrap_or_else(PoisonError::into_inner).extend(done);
            let _ = signal.write(1);
        }
    }

    /// Drops a part of what is to go from the page cache, and looks at it when all is gone or a look is due. A limit does
    /// not wait for the budget, which pays for it afterwards.
    fn disk_cache(&mut self) -> Option<Reading> {
        let orders = std::mem::take(&mut *self.desk.keep.lock().unwrap_or_else(PoisonError::into_inner));
        self.disks.keep(&orders);
        let now = Instant::now();
        if self.disks.is_dropping() {
            self.disks.drop_some();
            return (!self.disks.is_dropping()).then(|| self.disks.read());
        }
        (self.disks.is_due(now) && self.budget.is_open(now)).then(|| self.disks.read())
    }

    /// Payers whose time has come; all of them in their order if that of the last has.
    fn payers_due(&mut self) -> Vec<Payer> {
        let mut asked = self.desk.payers.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.append(&mut asked);
        drop(asked);
        let may_wait = self.waiting.iter().all(|payer| payer.by_guest);
        if may_wait && !self.budget.is_open(Instant::now()) {
            vec![]
        } else {
            std::mem::take(&mut self.waiting)
        }
    }

    /// What was touched before is in the table by now.
    fn put_in_place(&self, payers: &[Payer]) -> Vec<InPlace> {
        let place = |payer: &Payer| {
            self.table.set_owner(payer.owner);
            let moved_frames = if payer.with_charges { self.table.take_charges(payer.owner) } else { 0 };
            InPlace { order: payer.order, moved_frames }
        };
        payers.iter().map(place).collect()
    }

    fn pass(&mut self, pass: Pass) -> Option<Reconciled> {
        self.watch.begin();
        match self.comparison.run(pass) {
            Ok(done) => {
                self.watch.passed(&self.table);
                Some(done)
            }
            Err(error) => {
                tracing::warn!(%error, "Cannot read the page map");
                None
            }
        }
    }
}
