//! A thread that keeps the frame table true: on request, and by itself within a rate limit of CPU time.
//!
//! ```text
//!   every second   the kernel's total (O(1)) -> published as the table's error
//!                  it moved, and there is CPU time -> a pass over the blocks where frames may have been touched
//!   on request     a full pass; it takes CPU time from the bucket, so that the next passes of its own come later
//!   disk cache     read when the disks moved bytes and there is CPU time; dropped on request, a part per round
//!   another payer  a pass over those blocks, then the table's owner changes: earlier frames are charged as before
//! ```
//!
//! A guest that wants another payer waits until there is CPU time. All frames get their owner on this thread, so that
//! no frame is charged by a command that is over.
//!
//! A guest that touches nothing costs one reading of the total per second, some microseconds, and no pass.

mod own_memory;

use crate::disk_cache::{DiskCache, Reading};
use crate::memory::{Comparison, Images, Pagemap, Pass, Ram, Reconciled};
use crate::token_bucket::TokenBucket;
use host::kernel::thread_cpu;
use own_memory::OwnMemory;
use protocol::disk::KeepCached;
use protocol::frames::FrameTable;
use protocol::message::RECONCILE_CPU_PPM;
use protocol::sync::MutexExt;
use protocol::time::millis;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::AcqRel, Ordering::Relaxed, Ordering::Release};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Time between two readings of the kernel's total.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Watches what the kernel does with memory, without scanning each frame.
pub trait Watch: Send {
    /// Publishes the table's error now, and returns the pass that is worth its cost.
    fn check(&mut self, table: &FrameTable) -> Option<Pass>;
    /// A pass begins.
    fn begin(&mut self);
    /// The pass is over: the table agrees with the kernel at some moment since it began. Publishes the error.
    fn passed(&mut self, table: &FrameTable);
}

/// Another payer for frames that are touched from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payer {
    /// Number of the balancer's charge; 0 for a registration.
    pub charge_id: u64,
    /// Owner id of the payer.
    pub owner: u16,
    /// True if all frames that the guest holds are charged to this payer as well.
    pub with_charges: bool,
    /// True if the guest asked for it: then it waits for CPU time.
    pub by_guest: bool,
}

/// A payer that is in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedPayer {
    /// Number of the balancer's charge.
    pub charge_id: u64,
    /// Frames that were charged to another container before.
    pub moved_frames: u64,
}

/// What the thread did since the last call of [`Reconciler::take`].
#[derive(Debug, Default)]
pub struct Done {
    /// The newest pass that was requested.
    pub pass: Option<Reconciled>,
    /// Payers, in their order.
    pub payers: Vec<AppliedPayer>,
    /// The newest reading of the page cache of the disks.
    pub disk_cache: Option<Reading>,
}

impl Done {
    /// Adds later results.
    fn extend(&mut self, later: Self) {
        self.pass = later.pass.or(self.pass);
        self.payers.extend(later.payers);
        self.disk_cache = later.disk_cache.or(self.disk_cache.take());
    }

    fn is_empty(&self) -> bool {
        self.pass.is_none() && self.payers.is_empty() && self.disk_cache.is_none()
    }
}

/// Requests to the thread, and its results.
#[derive(Debug, Default)]
struct Inbox {
    compare: AtomicBool,
    payers: Mutex<Vec<Payer>>,
    /// What may stay in the page cache of the disks, by the last request.
    keep: Mutex<Vec<KeepCached>>,
    done: Mutex<Done>,
}

/// The reconciling thread. It ends when this handle is dropped.
#[derive(Debug)]
pub struct Reconciler {
    requests: SyncSender<()>,
    share_ppm: Arc<AtomicU32>,
    done: EventFd,
    inbox: Arc<Inbox>,
}

impl Reconciler {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread or no pagemap.
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

    /// Starts the thread for memory with this watch.
    ///
    /// # Errors
    /// When the system has no thread.
    pub fn watching(
        comparison: Comparison,
        watch: Box<dyn Watch>,
        table: Arc<FrameTable>,
        disks: DiskCache,
    ) -> io::Result<Self> {
        let (requests, wakes) = sync_channel(1);
        let done = EventFd::new(EFD_NONBLOCK)?;
        let share_ppm = Arc::new(AtomicU32::new(RECONCILE_CPU_PPM));
        let inbox = Arc::new(Inbox::default());
        let worker = Worker {
            comparison,
            watch,
            table,
            bucket: TokenBucket::new(Instant::now()),
            share_ppm: Arc::clone(&share_ppm),
            started: Instant::now(),
            inbox: Arc::clone(&inbox),
            disks,
            waiting: Vec::new(),
        };
        let signal = done.try_clone()?;
        Builder::new().name("reconciler".into()).spawn(move || worker.run(&wakes, &signal))?;
        Ok(Self { requests, share_ppm, done, inbox })
    }

    /// Asks for a pass now. Requests that come while one is waiting count as one.
    pub fn request(&self) {
        self.inbox.compare.store(true, Release);
        self.wake();
    }

    /// Changes the payer, once all that was touched before is charged as before.
    pub fn pay(&self, payer: Payer) {
        self.inbox.payers.acquire().push(payer);
        self.wake();
    }

    /// Keeps no more than this of the disks' page cache. It replaces an earlier request that is not begun.
    pub fn keep_cached(&self, files: Vec<KeepCached>) {
        *self.inbox.keep.acquire() = files;
        self.wake();
    }

    fn wake(&self) {
        match self.requests.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => tracing::error!("The reconciler is gone"),
        }
    }

    /// Sets the share of one CPU that the scans of this guest may cost from now on, parts per million.
    pub fn set_share(&self, share_ppm: u32) {
        self.share_ppm.store(share_ppm, Relaxed);
    }

    /// Readable when a request is done.
    #[must_use]
    pub fn done(&self) -> &EventFd {
        &self.done
    }

    /// Takes the results.
    #[must_use]
    pub fn take(&self) -> Done {
        let _ = self.done.read();
        std::mem::take(&mut *self.inbox.done.acquire())
    }
}

struct Worker {
    table: Arc<FrameTable>,
    comparison: Comparison,
    watch: Box<dyn Watch>,
    bucket: TokenBucket,
    share_ppm: Arc<AtomicU32>,
    started: Instant,
    inbox: Arc<Inbox>,
    disks: DiskCache,
    /// Payers that are not in effect yet.
    waiting: Vec<Payer>,
}

impl Worker {
    fn run(mut self, wakes: &Receiver<()>, signal: &EventFd) {
        let mut pause = CHECK_EVERY;
        loop {
            match wakes.recv_timeout(pause) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let before = thread_cpu();
            self.table.tick(millis(self.started.elapsed()));
            self.bucket.set_share(self.share_ppm.load(Relaxed), Instant::now());
            let asked = self.inbox.compare.swap(false, AcqRel);
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
                && (called || self.bucket.is_open(Instant::now()))
            {
                let pass = self.pass(pass);
                done = Done { pass: pass.filter(|_| asked), payers: self.apply(&payers), ..done };
            }
            self.bucket.spend(thread_cpu() - before);
            // A slow disk does not delay results that are there already.
            self.report(done, signal);
            let before = thread_cpu();
            let disk_cache = self.disk_cache();
            self.report(Done { disk_cache, ..Done::default() }, signal);
            self.bucket.spend(thread_cpu() - before);
            pause = self.bucket.pause_after(checked, CHECK_EVERY);
            if self.disks.is_dropping() {
                pause = Duration::ZERO;
            }
            if !self.waiting.is_empty() {
                pause = pause.min(self.bucket.opens_in(Instant::now()));
            }
        }
    }

    fn report(&self, done: Done, signal: &EventFd) {
        if !done.is_empty() {
            self.inbox.done.acquire().extend(done);
            let _ = signal.write(1);
        }
    }

    /// Drops a part of the page cache that a limit does not leave, and reads it when all is dropped or a reading is
    /// due. A limit does not wait for CPU time, which is taken afterwards.
    fn disk_cache(&mut self) -> Option<Reading> {
        let files = std::mem::take(&mut *self.inbox.keep.acquire());
        self.disks.keep(&files);
        let now = Instant::now();
        if self.disks.is_dropping() {
            self.disks.drop_some();
            return (!self.disks.is_dropping()).then(|| self.disks.read());
        }
        (self.disks.is_due(now) && self.bucket.is_open(now)).then(|| self.disks.read())
    }

    /// Payers that are due; all of them in their order if the last one is.
    fn payers_due(&mut self) -> Vec<Payer> {
        let mut asked = self.inbox.payers.acquire();
        self.waiting.append(&mut asked);
        drop(asked);
        let may_wait = self.waiting.iter().all(|payer| payer.by_guest);
        if may_wait && !self.bucket.is_open(Instant::now()) {
            vec![]
        } else {
            std::mem::take(&mut self.waiting)
        }
    }

    /// Changes the owner in the table, which has all that was touched before.
    fn apply(&self, payers: &[Payer]) -> Vec<AppliedPayer> {
        let apply = |payer: &Payer| {
            self.table.set_owner(payer.owner);
            let moved_frames = if payer.with_charges { self.table.take_charges(payer.owner) } else { 0 };
            AppliedPayer { charge_id: payer.charge_id, moved_frames }
        };
        payers.iter().map(apply).collect()
    }

    fn pass(&mut self, pass: Pass) -> Option<Reconciled> {
        self.watch.begin();
        match self.comparison.run(pass) {
            Ok(done) => {
                self.watch.passed(&self.table);
                Some(done)
            }
            Err(error) => {
                tracing::warn!(%error, "Cannot read the pagemap");
                None
            }
        }
    }
}
