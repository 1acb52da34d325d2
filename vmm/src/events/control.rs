//! The balloon, the frame table's reconciler, the control port and the link to the balancer: where a limit becomes a
//! target, and an order another payer.

use super::port::Port;
use super::queues::Queues;
use super::watch;
use crate::disk_cache::Reading;
use crate::link::{Heard, KeptLink, Link, Registration};
use crate::machine::attach::Attached;
use crate::own_objects::FdLimit;
use crate::reconciler::{InPlace, Payer, Reconciler};
use crate::vcpu::gate::Gate;
use devices::virtio::balloon::{Balloon, BalloonEvent, StatsSample};
use event_manager::{EventOps, Events, MutEventSubscriber};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::FrameTable;
use protocol::message::{self, Charge, FromVmm, ToVmm};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use vmm_sys_util::timerfd::TimerFd;

const LINK: u32 = 100;
const RECONCILED: u32 = 101;
const HOLD: u32 = 102;
/// The first queue of the control port.
const PORT: u32 = 200;
const STATS_QUEUE: usize = 2;
/// How long a guest without a balancer keeps what it took back in need: as a balancer lets it, and twice as long each
/// time, so that a guest that cannot live inside its limit is not made to give and take for ever.
const HOLD_MIN: Duration = Duration::from_secs(30);
const HOLD_MAX: Duration = Duration::from_secs(600);

/// A limit that nobody but this process enforces.
#[derive(Debug)]
struct Alone {
    target_bytes: u64,
    /// How long the guest keeps what it takes back next.
    hold: Duration,
    timer: TimerFd,
}

/// Serves the balloon's queues, the balancer's messages and the reconciler's results.
pub struct Control {
    balloon: Attached<Balloon>,
    table: Arc<FrameTable>,
    ram_bytes: u64,
    reconciler: Reconciler,
    link: KeptLink,
    alone: Option<Alone>,
    port: Option<Port>,
    /// Closed while the balancer wants the guest to stand still.
    gate: Option<Arc<Gate>>,
    oom_deflates: u64,
    sequence_sent: u64,
    /// The last look at the page cache of the disks.
    disk_cache: Option<Reading>,
    /// The limit on descriptors at the start; `None` where the system did not tell.
    fd_limit: Option<FdLimit>,
}

impl Control {
    /// Controls this balloon, alone until a link is given.
    #[must_use]
    pub fn new(
        balloon: Attached<Balloon>,
        table: Arc<FrameTable>,
        ram_bytes: u64,
        reconciler: Reconciler,
    ) -> Self {
        Self {
            balloon,
            link: KeptLink::new(Arc::clone(&table), LINK),
            table,
            ram_bytes,
            reconciler,
            alone: None,
            port: None,
            gate: None,
            oom_deflates: 0,
            sequence_sent: 0,
            disk_cache: None,
            fd_limit: FdLimit::read().ok(),
        }
    }

    /// The guest may ask by this port who pays. To be called before the control is among the subscribers.
    #[must_use]
    pub fn with_port(self, port: Option<Port>) -> Self {
        Self { port, ..self }
    }

    /// The guest's vCPUs go through this gate.
    #[must_use]
    pub fn with_gate(self, gate: Arc<Gate>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// A balancer took the guest, which does not run yet.
    pub fn linked(&mut self, registration: Registration, link: Link, answer: &ToVmm) {
        self.link.linked(registration, link);
        if let ToVmm::Registered { owner, target_bytes, .. } = answer {
            self.table.set_owner(*owner);
            self.set_target(*target_bytes);
        }
    }

    /// Enforces a limit without a balancer: the guest holds at most this much of its RAM, and is asked for it again
    /// some time after it took memory back in need. To be called before the control is among the subscribers.
    ///
    /// # Errors
    /// When the system has no timer.
    pub fn limit_alone(&mut self, target_bytes: u64) -> std::io::Result<()> {
        self.alone = Some(Alone { target_bytes, hold: HOLD_MIN, timer: TimerFd::new()? });
        self.set_target(target_bytes);
        Ok(())
    }

    /// The guest had its time with what it took back in need.
    fn limit_again(&mut self) {
        if let Some(Alone { target_bytes, timer, .. }) = &mut self.alone {
            let _ = timer.wait();
            let target_bytes = *target_bytes;
            self.set_target(target_bytes);
        }
    }

    /// Asks the guest to hold at most this much of its RAM.
    pub fn set_target(&mut self, target_bytes: u64) {
        let ballooned = self.ram_bytes.saturating_sub(target_bytes).div_ceil(FRAME_BYTES);
        let ballooned = u32::try_from(ballooned).unwrap_or(u32::MAX);
        let mut transport = self.balloon.device.lock().unwrap_or_else(PoisonError::into_inner);
        if transport.device_mut().set_target(ballooned) {
            transport.config_changed();
        }
    }

    /// Says good-bye, so that the balancer knows why the guest ends.
    pub fn say_ended(&self, reason: &str) {
        self.link.send(&FromVmm::Ended { reason: reason.into() });
    }

    fn obey(&mut self, message: &ToVmm) {
        match message {
            ToVmm::Registered { owner, target_bytes, .. } => {
                // Taken back: what it touches meanwhile is charged as it was told before.
                self.reconciler.pay(Payer { order: 0, owner: *owner, with_charges: false, by_guest: false });
                self.set_target(*target_bytes);
            }
            ToVmm::Target { target_bytes, .. } => {
                self.set_target(*target_bytes);
                self.report_balloon();
            }
            ToVmm::SampleStats => {
                let mut transport = self.balloon.device.lock().unwrap_or_else(PoisonError::into_inner);
                if transport.device_mut().request_stats() {
                    transport.queue_event(STATS_QUEUE);
                }
                let ready = transport.device().driver_ready();
                drop(transport);
                // A driver that was unloaded went without an event of a queue.
                if !ready {
                    self.report_balloon();
                }
            }
            ToVmm::Pause { paused } => self.pause(*paused),
            ToVmm::DropDiskCache { files } => self.reconciler.keep_cached(files.clone()),
            ToVmm::Reconcile => self.reconciler.request(),
            ToVmm::ReconcileShare { cpu_ppm } => self.reconciler.set_share(*cpu_ppm),
            ToVmm::Charge(charge) => self.charge(charge),
            ToVmm::RefuseCharge { question, reason } => {
                if let Some(port) = &mut self.port {
                    port.refused(*question, reason);
                }
            }
            ToVmm::FdsMax { fds_max } => match self.fd_limit.as_ref().map(|limit| limit.set(*fds_max)) {
                Some(Ok(limit)) => tracing::debug!(limit, "The limit on descriptors changed"),
                Some(Err(error)) => tracing::warn!(%error, "Cannot limit the descriptors"),
                None => {}
            },
            ToVmm::Detach => tracing::warn!("The balancer would let go of a guest that this process runs"),
            // Of the second connection.
            ToVmm::Granules { .. } | ToVmm::Unmap { .. } => tracing::warn!("The balancer spoke of granules"),
            ToVmm::Waiting { reason } => tracing::warn!(reason, "The balancer lets a guest wait that runs"),
            // Only ever the answer to a registration.
            ToVmm::Images { .. } => tracing::warn!("The balancer handed images over that nobody asked for"),
            ToVmm::Refused { reason } => tracing::warn!(reason, "The balancer refused what nobody asked"),
        }
    }

    /// Lets the guest stand still, or go on.
    fn pause(&self, paused: bool) {
        if let Some(gate) = &self.gate {
            tracing::info!(paused, "The balancer holds the guest up, or lets it go on");
            gate.set_closed(paused);
        }
    }

    /// Somebody else pays from now on.
    fn charge(&mut self, charge: &Charge) {
        self.link.charged(charge);
        if let (Some(port), Some(question)) = (&mut self.port, charge.question) {
            port.granted(question, charge.order);
        }
        let Charge { order, owner, with_charges, .. } = *charge;
        self.reconciler.pay(Payer { order, owner, with_charges, by_guest: charge.question.is_some() });
    }

    /// The reconciler did what it was asked for.
    fn reconciled(&mut self) {
        let done = self.reconciler.take();
        if let Some(pass) = done.pass {
            let took_us = u64::try_from(pass.took.as_micros()).unwrap_or(u64::MAX);
            self.link.send(&FromVmm::Reconciled { mended_frames: pass.mended_frames, took_us });
        }
        if done.disk_cache.is_some() {
            self.disk_cache = done.disk_cache;
            self.report_disk_cache();
        }
        for InPlace { order, moved_frames } in done.payers.into_iter().filter(|payer| payer.order > 0) {
            self.link.send(&FromVmm::Charged { order, moved_frames });
            if let Some(port) = &mut self.port {
                port.carried_out(order);
            }
        }
    }

    fn hear(&mut self, ops: &mut EventOps<'_>) {
        while let Some(heard) = self.link.hear(ops) {
            match heard {
                Heard::Said(message) => self.obey(&message),
                Heard::Gone => {
                    if let Some(port) = &mut self.port {
                        port.forsaken();
                    }
                    // Nobody is left to say when it may go on.
                    self.pause(false);
                    self.link.register_again(self.balloon_state(), ops);
                }
                Heard::TakenBack(answer) => {
                    self.obey(&answer);
                    self.report_balloon();
                    self.report_disk_cache();
                }
            }
        }
    }

    fn balloon_state(&self) -> message::Balloon {
        let transport = self.balloon.device.lock().unwrap_or_else(PoisonError::into_inner);
        let balloon = transport.device();
        let held = |frames: u64| self.ram_bytes.saturating_sub(frames * FRAME_BYTES);
        message::Balloon {
            driver_ready: balloon.driver_ready(),
            target_bytes: held(u64::from(balloon.target_frames())),
            actual_bytes: held(balloon.held_frames()),
            oom_deflates: self.oom_deflates,
        }
    }

    fn report_balloon(&self) {
        self.link.send(&FromVmm::Balloon(self.balloon_state()));
    }

    fn report_disk_cache(&self) {
        if let Some(Reading { files, at }) = &self.disk_cache {
            let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.link.send(&FromVmm::DiskCache { files: files.clone(), age_ms });
        }
    }

    fn after_queue_event(&mut self) {
        let (events, statistics) = {
            let mut transport = self.balloon.device.lock().unwrap_or_else(PoisonError::into_inner);
            let events = transport.device_mut().take_events();
            let balloon = transport.device();
            let sample = balloon.stats().filter(|sample| sample.sequence > self.sequence_sent);
            let in_used = if balloon.deflates_on_oom() { balloon.held_frames() * FRAME_BYTES } else { 0 };
            (events, sample.map(|sample| statistics(sample, in_used)))
        };
        if let Some(statistics) = statistics {
            self.sequence_sent = statistics.sequence;
            self.link.send(&FromVmm::Statistics(statistics));
        }
        let mut moved = false;
        for event in events {
            match event {
                BalloonEvent::OomDeflated { .. } => {
                    self.oom_deflates += 1;
                    moved = true;
                    self.follow_oom();
                }
                BalloonEvent::StatsUpdated => {}
                _ => moved = true,
            }
        }
        if moved {
            self.report_balloon();
        }
    }

    /// The guest took memory back because it was out of memory. The target follows at once, or the guest would be made
    /// to give the same memory again while it still needs it; the balancer decides when it is asked back.
    fn follow_oom(&mut self) {
        let mut transport = self.balloon.device.lock().unwrap_or_else(PoisonError::into_inner);
        let held = u32::try_from(transport.device().held_frames()).unwrap_or(u32::MAX);
        let target = transport.device().target_frames().min(held);
        if transport.device_mut().set_target(target) {
            transport.config_changed();
        }
        drop(transport);
        if let Some(Alone { hold, timer, .. }) = &mut self.alone {
            if let Err(error) = timer.reset(*hold, None) {
                tracing::error!(?error, "The limit is not asked for again");
            }
            *hold = (*hold * 2).min(HOLD_MAX);
        }
    }
}

fn statistics(sample: &StatsSample, ballooned_used_bytes: u64) -> message::Statistics {
    let stats = &sample.stats;
    message::Statistics {
        swap_in_bytes: stats.swap_in_bytes,
        swap_out_bytes: stats.swap_out_bytes,
        major_faults: stats.major_faults,
        minor_faults: stats.minor_faults,
        free_memory_bytes: stats.free_memory_bytes,
        total_memory_bytes: stats.total_memory_bytes,
        available_memory_bytes: stats.available_memory_bytes,
        disk_caches_bytes: stats.disk_caches_bytes,
        hugetlb_allocations: stats.hugetlb_allocations,
        hugetlb_failures: stats.hugetlb_failures,
        oom_kills: stats.oom_kill,
        alloc_stalls: stats.alloc_stall,
        async_scans: stats.async_scan,
        direct_scans: stats.direct_scan,
        async_reclaims: stats.async_reclaim,
        direct_reclaims: stats.direct_reclaim,
        ballooned_used_bytes,
        sequence: sample.sequence,
        age_ms: u64::try_from(sample.at.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

impl MutEventSubscriber for Control {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LINK => self.hear(ops),
            HOLD => self.limit_again(),
            RECONCILED => self.reconciled(),
            queue if queue >= PORT => {
                if let Some(port) = &mut self.port {
                    port.pass_on((queue - PORT) as usize, &self.link);
                }
            }
            queue => {
                Queues::serve(&self.balloon, queue as usize);
                self.after_queue_event();
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        Queues::watch_all(&self.balloon, ops);
        watch(ops, self.reconciler.done(), RECONCILED);
        if let Some(port) = &self.port {
            port.watch(ops, PORT);
        }
        if let Some(alone) = &self.alone {
            watch(ops, &alone.timer, HOLD);
        }
        self.link.watch(ops);
    }
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
