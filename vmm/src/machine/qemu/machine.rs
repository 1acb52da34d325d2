//! The running machine of QEMU, as the event loop sees it: it talks to the worker thread and never waits for QEMU.

use super::balloon_history::BalloonHistory;
use super::targets::Targets;
use super::worker::{QmpWorker, WorkerUpdate};
use crate::control::{GuestUpdate, Machine};
use crate::epoll::watch;
use crate::machine::resident_bytes;
use crate::vcpu::End;
use event_manager::EventOps;
use host::proc::Folder;
use protocol::bytes::FRAME_BYTES;
use protocol::frames::{FrameTable, RegionKind, State};
use protocol::message::Balloon;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

/// What QEMU may grow by until its memory is read next: translated code, threads for input and output. Bytes.
const GROWTH_BYTES: u64 = 16 << 20;
/// How long it may take to restore a machine: a little more than the worker takes.
const DETACH_DEADLINE: Duration = Duration::from_secs(9);

/// The parts of a machine.
pub(super) struct Parts {
    pub worker: QmpWorker,
    pub table: Arc<FrameTable>,
    pub ram_bytes: u64,
    /// RAM less the balloon now, bytes.
    pub actual_bytes: u64,
    /// The process that has the RAM.
    pub pid: i32,
    /// The guest deflates the balloon by itself when it is out of memory, and counts the balloon as used.
    pub deflates_on_oom: bool,
    /// Where the end is sent, and what wakes the event loop then.
    pub end: (Sender<End>, EventFd),
}

/// A machine on QEMU.
pub(super) struct QemuMachine {
    parts: Parts,
    driver_ready: bool,
    targets: Targets,
    actual_bytes: u64,
    history: BalloonHistory,
    /// Times that the guest deflated its balloon because it was out of memory, since boot.
    oom_deflates: u64,
    /// Why the machine ends, in QEMU's words.
    shutdown: Option<String>,
}

impl QemuMachine {
    pub(super) fn new(parts: Parts) -> Self {
        let (ram_bytes, actual_bytes) = (parts.ram_bytes, parts.actual_bytes);
        Self {
            driver_ready: actual_bytes != ram_bytes,
            targets: Targets::new(actual_bytes),
            actual_bytes,
            history: BalloonHistory::new(ram_bytes.saturating_sub(actual_bytes)),
            oom_deflates: 0,
            shutdown: None,
            parts,
        }
    }

    /// Starts a machine that was created and waits.
    pub(super) fn start(&self) {
        self.parts.worker.set_running(true);
    }

    /// Restores the original settings of the machine, as far as it answers, and waits until that is done.
    pub(super) fn detach_now(&self) {
        if let Err(reason) = self.parts.worker.detach_within(DETACH_DEADLINE) {
            tracing::warn!(reason, "The original settings of the machine are not restored");
        }
    }

    /// Why the machine ended, if QEMU reported it.
    pub(super) fn shutdown(&self) -> Option<&str> {
        self.shutdown.as_deref()
    }

    fn update(&mut self, update: WorkerUpdate, updates: &mut Vec<GuestUpdate>) {
        match update {
            WorkerUpdate::Balloon(bytes) => self.balloon_moved(bytes.min(self.parts.ram_bytes), updates),
            WorkerUpdate::Statistics(mut sample) => {
                if !std::mem::replace(&mut self.driver_ready, true) {
                    updates.push(GuestUpdate::Balloon(self.balloon()));
                }
                if self.parts.deflates_on_oom {
                    sample.ballooned_used_bytes = self.history.at(&sample, Instant::now());
                }
                updates.push(GuestUpdate::Statistics(sample));
            }
            WorkerUpdate::Stuck(reason) => {
                match &reason {
                    Some(reason) => tracing::warn!(reason, "The machine is stuck; its target waits"),
                    None => tracing::warn!("The machine answers again"),
                }
                updates.push(GuestUpdate::Stuck(reason));
            }
            WorkerUpdate::Shutdown(reason) => self.shutdown = Some(reason),
            WorkerUpdate::Closed(reason) => self.end(reason),
            WorkerUpdate::Detached(Ok(())) => self.end("It was detached, as it was found".into()),
            WorkerUpdate::Detached(Err(why)) => {
                self.end(format!("It was detached, but not as it was found: {why}"));
            }
            WorkerUpdate::NotDetached(reason) => {
                tracing::warn!(reason, "The machine is not detached: it stays under the balancer");
            }
        }
    }

    /// The guest inflated or deflated its balloon: it says so itself, and QEMU passes that on.
    fn balloon_moved(&mut self, bytes: u64, updates: &mut Vec<GuestUpdate>) {
        let (before, now) = (std::mem::replace(&mut self.actual_bytes, bytes), Instant::now());
        self.driver_ready |= bytes != before;
        self.history.moved(self.parts.ram_bytes - bytes, now);
        if self.targets.is_out_of_memory(before, bytes, now) {
            self.oom_deflates += 1;
            self.set_target(bytes);
            updates.push(GuestUpdate::OutOfMemory);
        }
        updates.push(GuestUpdate::Balloon(self.balloon()));
    }

    fn end(&self, reason: String) {
        let _ = self.parts.end.0.send(End::Machine(reason));
        let _ = self.parts.end.1.write(1);
    }
}

impl Machine for QemuMachine {
    // QEMU grows while it translates code.
    const OVERHEAD_INTERVAL: Option<Duration> = Some(Duration::from_secs(1));

    fn watch(&self, ops: &mut EventOps<'_>, base: u32) {
        watch(ops, self.parts.worker.ready(), base);
    }

    fn serve(&mut self, _: u32) -> Vec<GuestUpdate> {
        let mut updates = Vec::new();
        for update in self.parts.worker.take() {
            self.update(update, &mut updates);
        }
        updates
    }

    fn balloon(&self) -> Balloon {
        Balloon {
            driver_ready: self.driver_ready,
            target_bytes: self.targets.bytes(),
            actual_bytes: self.actual_bytes,
            oom_deflates: self.oom_deflates,
        }
    }

    fn ram_bytes(&self) -> u64 {
        self.parts.ram_bytes
    }

    fn set_target(&mut self, target_bytes: u64) {
        // QEMU refuses 0, and a target above RAM means all of RAM.
        let target_bytes = target_bytes.clamp(FRAME_BYTES, self.parts.ram_bytes);
        self.targets.set(target_bytes, Instant::now());
        self.parts.worker.set_target(target_bytes);
    }

    fn sample(&mut self) -> Option<GuestUpdate> {
        self.parts.worker.sample();
        None
    }

    fn set_paused(&mut self, paused: bool) {
        self.parts.worker.set_running(!paused);
    }

    fn set_fds_max(&mut self, _: Option<u32>) {
        // QEMU opens what it needs; a limit on this process would not bound that one.
    }

    fn detach(&mut self) {
        self.parts.worker.detach();
    }

    /// Resident memory of QEMU and of this process, less guest RAM.
    fn overhead_bytes(&self) -> u64 {
        let resident = resident_bytes(&Folder::own()) + resident_bytes(&Folder::of(self.parts.pid));
        let private = self.parts.table.total(RegionKind::Ram, State::Private) * FRAME_BYTES;
        resident.saturating_sub(private) + GROWTH_BYTES
    }
}
