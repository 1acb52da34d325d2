//! The balloon, the frame table's reconciler and the link to the balancer: where a limit becomes a target.

use super::queues::Queues;
use super::watch;
use crate::link::{Link, ensure_running};
use crate::machine::attach::Attached;
use crate::reconciler::Reconciler;
use crate::vcpu::End;
use devices::virtio::balloon::{Balloon, BalloonEvent, StatsSample};
use event_manager::{EventOps, Events, MutEventSubscriber};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::FrameTable;
use protocol::message::{self, FromVmm, Register, ToVmm};
use protocol::place::Place;
use std::io::ErrorKind;
use std::sync::mpsc::Sender;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use vmm_sys_util::timerfd::TimerFd;

const LINK: u32 = 100;
const RETRY: u32 = 101;
const RECONCILED: u32 = 102;
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// Registrations that are refused before the guest stops asking: another guest took its name meanwhile.
const REFUSALS_MAX: u32 = 40;
const STATS_QUEUE: usize = 2;

/// How the guest reaches its balancer.
#[derive(Debug)]
pub struct Registration {
    /// Where the balancer lives.
    pub place: Place,
    /// What is said to it.
    pub register: Register,
}

/// Serves the balloon's queues, the balancer's messages and the reconciler's results.
pub struct Control {
    balloon: Attached<Balloon>,
    table: Arc<FrameTable>,
    ram_bytes: u64,
    reconciler: Reconciler,
    registration: Option<Registration>,
    link: Option<Link>,
    retry: TimerFd,
    refusals: u32,
    oom_deflates: u64,
    sequence_sent: u64,
    end: Sender<End>,
}

impl Control {
    /// Controls this balloon, alone until a link is given.
    ///
    /// # Errors
    /// When the system has no timer.
    pub fn new(
        balloon: Attached<Balloon>,
        table: Arc<FrameTable>,
        ram_bytes: u64,
        reconciler: Reconciler,
        end: Sender<End>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            balloon,
            table,
            ram_bytes,
            reconciler,
            registration: None,
            link: None,
            retry: TimerFd::new()?,
            refusals: 0,
            oom_deflates: 0,
            sequence_sent: 0,
            end,
        })
    }

    /// A balancer took the guest.
    pub fn linked(&mut self, registration: Registration, link: Link, answer: &ToVmm) {
        self.registration = Some(registration);
        self.link = Some(link);
        self.obey(answer);
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
        if let Some(link) = &self.link {
            let _ = link.send(&FromVmm::Ended { reason: reason.into() });
        }
    }

    fn obey(&mut self, message: &ToVmm) {
        match message {
            ToVmm::Registered { owner, target_bytes, .. } => {
                self.table.set_owner(*owner);
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
            }
            ToVmm::Reconcile => self.reconciler.request(),
            ToVmm::Owner { owner } => self.table.set_owner(*owner),
            ToVmm::Refused { reason } => {
                // Only seen when registering again; the first registration is answered before the guest runs.
                self.refusals += 1;
                tracing::warn!(reason, "The balancer does not take the guest back");
                if self.refusals >= REFUSALS_MAX {
                    let _ = self.end.send(End::Refused(reason.clone()));
                }
            }
        }
    }

    fn receive(&mut self, ops: &mut EventOps<'_>) {
        while let Some(link) = &self.link {
            match link.receive() {
                Ok(Some(message)) => self.obey(&message),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    tracing::warn!(%error, "The balancer sent something else than a message");
                }
                Ok(None) | Err(_) => self.lost(ops),
            }
        }
    }

    /// The balancer is gone. The guest runs on inside its last target, and registers again as soon as there is one.
    fn lost(&mut self, ops: &mut EventOps<'_>) {
        if let Some(link) = self.link.take() {
            let _ = ops.remove(Events::empty(&link));
            tracing::warn!("The balancer is gone; the guest keeps its target and registers again");
        }
        self.arm_retry();
    }

    fn arm_retry(&mut self) {
        if let Err(error) = self.retry.reset(RETRY_INTERVAL, None) {
            tracing::error!(?error, "Cannot wait for a balancer");
        }
    }

    fn register_again(&mut self, ops: &mut EventOps<'_>) {
        let _ = self.retry.wait();
        let balloon = self.balloon_state();
        let Some(registration) = &mut self.registration else { return };
        registration.register.balloon = balloon;
        let socket = registration.place.guest_socket();
        match Link::register(&socket, &registration.register, self.table.fd()) {
            Ok((link, answer)) => {
                let taken = matches!(answer, ToVmm::Registered { .. });
                self.obey(&answer);
                if taken {
                    tracing::info!("The balancer took the guest back");
                    watch(ops, &link, LINK);
                    self.refusals = 0;
                    self.link = Some(link);
                    self.report_balloon();
                } else {
                    self.arm_retry();
                }
            }
            Err(error) => {
                tracing::debug!(%error, "No balancer yet");
                // A balancer that ended with its last guest, or was killed, is started again for this user.
                if let Err(error) = ensure_running(&registration.place) {
                    tracing::warn!("{:#}", anyhow::Error::from(error));
                }
                self.arm_retry();
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
            actual_bytes: held(u64::from(balloon.actual_frames())),
            ballooned_bytes: balloon.held_frames() * FRAME_BYTES,
            oom_deflates: self.oom_deflates,
        }
    }

    fn report_balloon(&self) {
        self.send(&FromVmm::Balloon(self.balloon_state()));
    }

    fn send(&self, message: &FromVmm) {
        // A link that broke is noticed by its hang-up.
        if let Some(link) = &self.link
            && let Err(error) = link.send(message)
        {
            tracing::debug!(%error, "Cannot tell the balancer");
        }
    }

    fn after_queue_event(&mut self) {
        let (events, statistics) = {
            let mut transport = self.balloon.device.lock().unwrap_or_else(PoisonError::into_inner);
            let events = transport.device_mut().take_events();
            let sample = transport.device().stats().filter(|sample| sample.sequence > self.sequence_sent);
            (events, sample.map(statistics))
        };
        if let Some(statistics) = statistics {
            self.sequence_sent = statistics.sequence;
            self.send(&FromVmm::Statistics(statistics));
        }
        let mut moved = false;
        for event in events {
            match event {
                BalloonEvent::OomDeflated { frames } => {
                    self.oom_deflates += 1;
                    moved = true;
                    self.follow_oom(frames);
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
    fn follow_oom(&mut self, frames: u64) {
        {
            let mut transport = self.balloon.device.lock().unwrap_or_else(PoisonError::into_inner);
            let held = u32::try_from(transport.device().held_frames()).unwrap_or(u32::MAX);
            let target = transport.device().target_frames().min(held);
            if transport.device_mut().set_target(target) {
                transport.config_changed();
            }
        }
        let detail = format!("The guest was out of memory and took {} bytes back", frames * FRAME_BYTES);
        self.send(&FromVmm::Event { kind: "oom_deflate".into(), detail });
    }
}

fn statistics(sample: &StatsSample) -> message::Statistics {
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
        sequence: sample.sequence,
        age_ms: u64::try_from(sample.at.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

impl MutEventSubscriber for Control {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LINK => self.receive(ops),
            RETRY => self.register_again(ops),
            RECONCILED => {
                if let Some(pass) = self.reconciler.take() {
                    let took_us = u64::try_from(pass.took.as_micros()).unwrap_or(u64::MAX);
                    self.send(&FromVmm::Reconciled { mended_frames: pass.mended_frames, took_us });
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
        watch(ops, &self.retry, RETRY);
        watch(ops, self.reconciler.done(), RECONCILED);
        if let Some(link) = &self.link {
            watch(ops, link, LINK);
        }
    }
}
