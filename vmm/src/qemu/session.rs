//! A guest on QEMU beside its balancer: what `events::control` is to the `kvm` engine. It waits for the balancer, for the
//! operator's news, for the frame table's thread and for the control port, and for nobody else.

use super::ballooned::Ballooned;
use super::operator::{News, Operator};
use super::targets::Targets;
use crate::disk_cache::Reading;
use crate::events::port::Port;
use crate::events::watch;
use crate::link::{Heard, KeptLink, Link, Registration};
use crate::machine::resident_bytes_of;
use crate::reconciler::{InPlace, Payer, Reconciler};
use crate::vcpu::End;
use event_manager::{EventOps, Events, MutEventSubscriber};
use protocol::bytes::FRAME_BYTES;
use protocol::frames::{FrameTable, RegionKind, State};
use protocol::message::{self, Charge, FromVmm, ToVmm};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

const LINK: u32 = 1;
const RECONCILED: u32 = 2;
const NEWS: u32 = 3;
const TURN: u32 = 4;
const PORT: u32 = 5;

/// How often a limit is looked at that nobody else enforces.
const TURN_EVERY: Duration = Duration::from_secs(1);
/// What QEMU may grow by until the next look: code that is translated, threads for input and output. Bytes.
const GROWTH_BYTES: u64 = 16 << 20;
/// A target that would move by less stays. Bytes.
const CHANGE_BYTES_MIN: u64 = 1 << 20;
/// How long a guest without a balancer keeps what it took back in need, and twice as long each time.
const HOLD_MIN: Duration = Duration::from_secs(30);
const HOLD_MAX: Duration = Duration::from_secs(600);
/// How long it may take to leave a machine as it was found: a little more than its operator takes.
const LEAVE_DEADLINE: Duration = Duration::from_secs(9);

/// What a session is made of.
pub(super) struct Parts {
    pub operator: Operator,
    pub reconciler: Reconciler,
    pub table: Arc<FrameTable>,
    pub ram_bytes: u64,
    /// What the balloon leaves the guest now.
    pub actual_bytes: u64,
    /// Process that has the RAM.
    pub machine_pid: i32,
    /// The guest takes memory back by itself when it has none, and counts the balloon as used.
    pub deflates_on_oom: bool,
    pub port: Option<Port>,
    /// Where the end is told, and what wakes the loop that looks for it.
    pub end: (Sender<End>, EventFd),
}

/// A limit that nobody but this process enforces.
struct Alone {
    ceiling_bytes: u64,
    floor_bytes: u64,
    hold: Duration,
    held_until: Option<Instant>,
}

/// The session of one guest.
pub(super) struct Session {
    parts: Parts,
    link: KeptLink,
    alone: Option<(Alone, TimerFd)>,
    driver_ready: bool,
    targets: Targets,
    actual_bytes: u64,
    ballooned: Ballooned,
    oom_deflates: u64,
    disk_cache: Option<Reading>,
    /// The balancer holds the machine up.
    paused: bool,
    /// Why the machine does not answer.
    stuck: Option<String>,
    /// Why the machine ends, in QEMU's words.
    shutdown: Option<String>,
}

impl Session {
    pub(super) fn new(parts: Parts) -> Self {
        let (ram_bytes, actual_bytes) = (parts.ram_bytes, parts.actual_bytes);
        Self {
            link: KeptLink::new(Arc::clone(&parts.table), LINK),
            alone: None,
            driver_ready: actual_bytes != ram_bytes,
            targets: Targets::new(actual_bytes),
            actual_bytes,
            ballooned: Ballooned::new(ram_bytes.saturating_sub(actual_bytes)),
            oom_deflates: 0,
            disk_cache: None,
            paused: false,
            stuck: None,
            shutdown: None,
            parts,
        }
    }

    /// The balloon as it is now.
    pub(super) fn balloon(&self) -> message::Balloon {
        message::Balloon {
            driver_ready: self.driver_ready,
            target_bytes: self.targets.bytes(),
            actual_bytes: self.actual_bytes,
            oom_deflates: self.oom_deflates,
        }
    }

    /// A balancer took the guest.
    pub(super) fn linked(&mut self, registration: Registration, link: Link, answer: &ToVmm) {
        self.link.linked(registration, link);
        if let ToVmm::Registered { owner, target_bytes, .. } = answer {
            self.parts.table.set_owner(*owner);
            self.set_target(*target_bytes);
        }
    }

    /// Enforces a limit without a balancer.
    pub(super) fn limit_alone(&mut self, ceiling_bytes: u64, floor_bytes: u64) -> io::Result<()> {
        let mut timer = TimerFd::new()?;
        timer.reset(TURN_EVERY, Some(TURN_EVERY)).map_err(io::Error::from)?;
        self.alone = Some((Alone { ceiling_bytes, floor_bytes, hold: HOLD_MIN, held_until: None }, timer));
        self.limit_again();
        Ok(())
    }

    /// Says good-bye, so that the balancer knows why the guest ends.
    pub(super) fn say_ended(&self, reason: &str) {
        self.link.send(&FromVmm::Ended { reason: reason.into() });
    }

    /// Lets a machine run that was started and waits.
    pub(super) fn start(&self) {
        self.parts.operator.set_running(true);
    }

    /// Leaves the machine as it was found, as far as it answers.
    pub(super) fn leave(&self) {
        if let Err(why) = self.parts.operator.leave(LEAVE_DEADLINE) {
            tracing::warn!(why, "The machine is not left as it was found");
        }
    }

    /// Why the machine ended, if it told.
    pub(super) fn shutdown(&self) -> Option<&str> {
        self.shutdown.as_deref()
    }

    fn set_target(&mut self, target_bytes: u64) {
        // QEMU refuses 0, and nothing above RAM is worth asking for.
        let target_bytes = target_bytes.clamp(FRAME_BYTES, self.parts.ram_bytes);
        self.targets.set(target_bytes, Instant::now());
        self.parts.operator.set_target(target_bytes);
    }

    /// The limit less what QEMU and this process take beside guest RAM, which grows while code is translated.
    fn limit_again(&mut self) {
        let Some((alone, _)) = &mut self.alone else { return };
        if alone.held_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let resident = resident_bytes_of("self") + resident_bytes_of(&self.parts.machine_pid.to_string());
        let private = self.parts.table.total(RegionKind::Ram, State::Private) * FRAME_BYTES;
        let overhead = resident.saturating_sub(private) + GROWTH_BYTES;
        let target = alone.ceiling_bytes.saturating_sub(overhead).max(alone.floor_bytes);
        if target.abs_diff(self.targets.bytes()) >= CHANGE_BYTES_MIN
            && target.min(self.parts.ram_bytes) != self.targets.bytes()
        {
            self.set_target(target);
        }
    }

    fn obey(&mut self, message: &ToVmm) {
        match message {
            ToVmm::Registered { owner, target_bytes, .. } => {
                self.parts.reconciler.pay(Payer {
                    order: 0,
                    owner: *owner,
                    with_charges: false,
                    by_guest: false,
                });
                self.set_target(*target_bytes);
            }
            ToVmm::Target { target_bytes, .. } => {
                self.set_target(*target_bytes);
                self.report_balloon();
            }
            ToVmm::Pause { paused } => self.pause(*paused),
            ToVmm::SampleStats => self.parts.operator.sample(),
            ToVmm::DropDiskCache { files } => self.parts.reconciler.keep_cached(files.clone()),
            ToVmm::Reconcile => self.parts.reconciler.request(),
            ToVmm::ReconcileShare { cpu_ppm } => self.parts.reconciler.set_share(*cpu_ppm),
            ToVmm::Charge(charge) => self.charge(charge),
            ToVmm::RefuseCharge { question, reason } => {
                if let Some(port) = &mut self.parts.port {
                    port.refused(*question, reason);
                }
            }
            ToVmm::Detach => self.parts.operator.detach(),
            // QEMU opens what it needs; bounding this process would not bound that one.
            ToVmm::FdsMax { .. } => {}
            ToVmm::Granules { .. } | ToVmm::Unmap { .. } | ToVmm::Images { .. } => {
                tracing::warn!("The balancer spoke of images that this guest does not have");
            }
            ToVmm::Waiting { reason } => tracing::warn!(reason, "The balancer lets a guest wait that runs"),
            ToVmm::Refused { reason } => tracing::warn!(reason, "The balancer refused what nobody asked"),
        }
    }

    fn pause(&mut self, paused: bool) {
        if self.paused != paused {
            tracing::info!(paused, "The balancer holds the guest up, or lets it go on");
            self.paused = paused;
            self.parts.operator.set_running(!paused);
        }
    }

    /// Somebody else pays from now on.
    fn charge(&mut self, charge: &Charge) {
        self.link.charged(charge);
        if let (Some(port), Some(question)) = (&mut self.parts.port, charge.question) {
            port.granted(question, charge.order);
        }
        let Charge { order, owner, with_charges, .. } = *charge;
        self.parts.reconciler.pay(Payer { order, owner, with_charges, by_guest: charge.question.is_some() });
    }

    /// The frame table's thread did what it was asked for.
    fn reconciled(&mut self) {
        let done = self.parts.reconciler.take();
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
            if let Some(port) = &mut self.parts.port {
                port.carried_out(order);
            }
        }
    }

    fn news(&mut self) {
        for news in self.parts.operator.take() {
            match news {
                News::Balloon(bytes) => self.balloon_moved(bytes.min(self.parts.ram_bytes)),
                News::Statistics(mut sample) => {
                    if !std::mem::replace(&mut self.driver_ready, true) {
                        self.report_balloon();
                    }
                    if self.parts.deflates_on_oom {
                        sample.ballooned_used_bytes = self.ballooned.at(&sample, Instant::now());
                    }
                    self.link.send(&FromVmm::Statistics(*sample));
                }
                News::Stuck(reason) => {
                    match &reason {
                        Some(reason) => tracing::warn!(reason, "The machine is stuck; its target waits"),
                        None => tracing::warn!("The machine answers again"),
                    }
                    self.stuck = reason;
                    self.report_stuck();
                }
                News::Shutdown(reason) => self.shutdown = Some(reason),
                News::Gone(reason) => self.end(End::Machine(reason)),
                News::Detached(Ok(())) => self.end(End::Machine("It was detached, as it was found".into())),
                News::Detached(Err(why)) => {
                    self.end(End::Machine(format!("It was detached, but not as it was found: {why}")));
                }
                News::Kept(why) => tracing::warn!(why, "The machine is not let go: it stays attached"),
            }
        }
    }

    /// The guest gave memory, or took it back: by its own word, which QEMU passes on.
    fn balloon_moved(&mut self, bytes: u64) {
        let (before, now) = (std::mem::replace(&mut self.actual_bytes, bytes), Instant::now());
        self.driver_ready |= bytes != before;
        self.ballooned.moved(self.parts.ram_bytes - bytes, now);
        if self.targets.is_in_need(before, bytes, now) {
            // Out of memory. The target follows at once, or the guest would be made to give the same memory again while it
            // still needs it; whoever decides asks it back later.
            self.oom_deflates += 1;
            self.set_target(bytes);
            if let Some((alone, _)) = &mut self.alone {
                alone.held_until = Some(Instant::now() + alone.hold);
                alone.hold = (alone.hold * 2).min(HOLD_MAX);
            }
        }
        self.report_balloon();
    }

    fn end(&self, end: End) {
        let _ = self.parts.end.0.send(end);
        let _ = self.parts.end.1.write(1);
    }

    fn hear(&mut self, ops: &mut EventOps<'_>) {
        while let Some(heard) = self.link.hear(ops) {
            match heard {
                Heard::Said(message) => self.obey(&message),
                Heard::Gone => {
                    if let Some(port) = &mut self.parts.port {
                        port.forsaken();
                    }
                    // Nobody is left to say when it may go on.
                    self.pause(false);
                    self.link.register_again(self.balloon(), ops);
                }
                Heard::TakenBack(answer) => {
                    self.obey(&answer);
                    self.report_balloon();
                    self.report_disk_cache();
                    self.report_stuck();
                }
            }
        }
    }

    fn report_balloon(&self) {
        self.link.send(&FromVmm::Balloon(self.balloon()));
    }

    fn report_stuck(&self) {
        self.link.send(&FromVmm::Stuck { reason: self.stuck.clone() });
    }

    fn report_disk_cache(&self) {
        if let Some(Reading { files, at }) = &self.disk_cache {
            let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.link.send(&FromVmm::DiskCache { files: files.clone(), age_ms });
        }
    }
}

impl MutEventSubscriber for Session {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LINK => self.hear(ops),
            RECONCILED => self.reconciled(),
            NEWS => self.news(),
            TURN => {
                if let Some((_, timer)) = &mut self.alone {
                    let _ = timer.wait();
                }
                self.limit_again();
            }
            _ => {
                if let Some(port) = &mut self.parts.port {
                    port.pass_on(0, &self.link);
                }
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        watch(ops, self.parts.reconciler.done(), RECONCILED);
        watch(ops, self.parts.operator.ready(), NEWS);
        if let Some(port) = &self.parts.port {
            port.watch(ops, PORT);
        }
        if let Some((_, timer)) = &self.alone {
            watch(ops, timer, TURN);
        }
        self.link.watch(ops);
    }
}
