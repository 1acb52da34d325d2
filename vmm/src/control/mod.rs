//! One guest between its machine and the balancer: a limit becomes a target, a command becomes another payer.
//!
//! ```text
//!   balancer <--link--> Control <--trait Machine--> KVM: balloon device, gate of the vCPUs, in this process
//!                        |   |                      QEMU: worker thread, QMP
//!   reconciler thread <--+   +--> control port of the guest
//! ```
//!
//! It waits for the balancer, for its machine, for the reconciler's results and for the control port, and never blocks.

mod machine;
pub(crate) mod port;
mod standalone;

pub use machine::{GuestUpdate, Machine};

use crate::disk_cache::Reading;
use crate::epoll::watch;
use crate::link::{self, Interrupts, Link, NotAdmitted, PersistentLink, Received, Registration};
use crate::reconciler::{AppliedPayer, Payer, Reconciler};
use event_manager::{EventOps, Events, MutEventSubscriber};
use port::Port;
use protocol::frames::FrameTable;
use protocol::message::{Charge, FromVmm, Register, ToVmm};
use protocol::run_dir::RunDir;
use protocol::time::millis;
use standalone::StandaloneLimit;
use std::io;
use std::sync::Arc;

const LINK: u32 = 0;
const RECONCILED: u32 = 1;
const STANDALONE: u32 = 2;
/// The first queue of the control port.
const PORT: u32 = 100;
/// The first event of the machine.
const MACHINE: u32 = 200;

/// Serves one machine, the balancer's messages and the reconciler's results.
pub struct Control<M: Machine> {
    machine: M,
    table: Arc<FrameTable>,
    reconciler: Reconciler,
    link: PersistentLink,
    standalone: Option<StandaloneLimit>,
    port: Option<Port>,
    /// The balancer wants the guest paused.
    paused: bool,
    /// Why the machine does not answer.
    stuck: Option<String>,
    /// The last reading of the page cache of the disks.
    disk_cache: Option<Reading>,
}

impl<M: Machine> Control<M> {
    /// Controls this machine, without a balancer and without a limit.
    #[must_use]
    pub fn new(machine: M, table: Arc<FrameTable>, reconciler: Reconciler) -> Self {
        Self {
            machine,
            link: PersistentLink::new(Arc::clone(&table), LINK),
            table,
            reconciler,
            standalone: None,
            port: None,
            paused: false,
            stuck: None,
            disk_cache: None,
        }
    }

    /// The guest may ask by this port for another payer. To be called before the control is among the subscribers.
    #[must_use]
    pub fn with_port(self, port: Option<Port>) -> Self {
        Self { port, ..self }
    }

    /// The machine.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// Makes the balancer of this run directory responsible for the guest, which does not run yet. Starts a balancer if
    /// there is none.
    ///
    /// # Errors
    /// When the guest is refused, or no balancer can be reached.
    pub fn register(
        &mut self,
        run_dir: RunDir,
        register: Register,
        interrupts: &Interrupts<'_>,
    ) -> Result<(), NotAdmitted> {
        let (link, answer) = link::enter(&run_dir, &register, self.table.fd(), interrupts)?;
        self.linked(Registration { run_dir, register }, link, &answer);
        Ok(())
    }

    /// A balancer admitted the guest, which does not run yet.
    fn linked(&mut self, registration: Registration, link: Link, answer: &ToVmm) {
        self.link.linked(registration, link);
        if let ToVmm::Registered { owner, target_bytes, .. } = answer {
            self.table.set_owner(*owner);
            self.machine.set_target(*target_bytes);
        }
    }

    /// Enforces a limit without a balancer: guest RAM and the overhead of the machine are at most `ceiling_bytes`,
    /// but no target goes below `floor_bytes`. To be called before the control is among the subscribers.
    ///
    /// # Errors
    /// When the system has no timer.
    pub fn limit_standalone(&mut self, ceiling_bytes: u64, floor_bytes: u64) -> io::Result<()> {
        let limit = self.standalone.insert(StandaloneLimit::new(ceiling_bytes, floor_bytes)?);
        limit.enforce(&mut self.machine);
        Ok(())
    }

    /// Tells the balancer why the guest ends.
    pub fn send_end(&self, reason: &str) {
        self.link.send(&FromVmm::Ended { reason: reason.into() });
    }

    /// Applies a message of the balancer.
    fn apply(&mut self, message: &ToVmm) {
        match message {
            ToVmm::Registered { owner, target_bytes, .. } => {
                // The guest registered again: frames that it touched meanwhile are charged as before.
                let owner = *owner;
                self.reconciler.pay(Payer { charge_id: 0, owner, with_charges: false, by_guest: false });
                self.machine.set_target(*target_bytes);
            }
            ToVmm::Target { target_bytes, .. } => {
                self.machine.set_target(*target_bytes);
                // Before the guest moves, and also if it never does: the balancer shows which target was asked for.
                self.report_balloon();
            }
            ToVmm::SampleStats => {
                let known = self.machine.sample();
                self.report_all(known);
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
            ToVmm::FdsMax { fds_max } => self.machine.set_fds_max(*fds_max),
            ToVmm::Detach => self.machine.detach(),
            // These belong to the second connection.
            ToVmm::Granules { .. } | ToVmm::Unmap { .. } => {
                tracing::warn!("The balancer sent a message about granules, which do not belong here");
            }
            ToVmm::Waiting { reason } => tracing::warn!(reason, "The balancer made a running guest a waiter"),
            // These only ever answer a request.
            ToVmm::Images { .. } => tracing::warn!("The balancer sent images without a request"),
            ToVmm::Refused { reason } => tracing::warn!(reason, "The balancer refused without a request"),
        }
    }

    /// Pauses or resumes the guest.
    fn pause(&mut self, paused: bool) {
        if self.paused != paused {
            tracing::info!(paused, "The guest is paused, or resumed");
            self.paused = paused;
            self.machine.set_paused(paused);
        }
    }

    /// Another container is charged from now on.
    fn charge(&mut self, charge: &Charge) {
        self.link.charged(charge);
        let Charge { order: charge_id, owner, with_charges, .. } = *charge;
        if let (Some(port), Some(question)) = (&mut self.port, charge.question) {
            port.granted(question, charge_id);
        }
        let by_guest = charge.question.is_some();
        self.reconciler.pay(Payer { charge_id, owner, with_charges, by_guest });
    }

    /// The reconciler finished some of its requests.
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
        let payers = done.payers.into_iter().filter(|payer| payer.charge_id > 0);
        for AppliedPayer { charge_id, moved_frames } in payers {
            self.link.send(&FromVmm::Charged { order: charge_id, moved_frames });
            if let Some(port) = &mut self.port {
                port.applied(charge_id);
            }
        }
    }

    /// Receives all that comes over the link.
    fn receive(&mut self, ops: &mut EventOps<'_>) {
        while let Some(received) = self.link.receive(ops) {
            match received {
                Received::Message(message) => self.apply(&message),
                Received::Closed => {
                    if let Some(port) = &mut self.port {
                        port.cancel_pending();
                    }
                    // No balancer is left to resume it.
                    self.pause(false);
                    self.link.register_again(self.machine.balloon(), ops);
                }
                Received::Readmitted(answer) => {
                    self.apply(&answer);
                    self.report_balloon();
                    self.report_disk_cache();
                    if self.stuck.is_some() {
                        self.report_stuck();
                    }
                }
            }
        }
    }

    /// Reports what changed in the machine.
    fn report_all(&mut self, updates: impl IntoIterator<Item = GuestUpdate>) {
        for update in updates {
            match update {
                GuestUpdate::Balloon(balloon) => self.link.send(&FromVmm::Balloon(balloon)),
                GuestUpdate::Statistics(sample) => self.link.send(&FromVmm::Statistics(*sample)),
                GuestUpdate::OutOfMemory => {
                    if let Some(limit) = &mut self.standalone {
                        limit.hold();
                    }
                }
                GuestUpdate::Stuck(reason) => {
                    self.stuck = reason;
                    self.report_stuck();
                }
            }
        }
    }

    fn report_balloon(&self) {
        self.link.send(&FromVmm::Balloon(self.machine.balloon()));
    }

    fn report_stuck(&self) {
        self.link.send(&FromVmm::Stuck { reason: self.stuck.clone() });
    }

    fn report_disk_cache(&self) {
        if let Some(Reading { files, at }) = &self.disk_cache {
            let age_ms = millis(at.elapsed());
            self.link.send(&FromVmm::DiskCache { files: files.clone(), age_ms });
        }
    }

    /// The time of a limit without a balancer has come.
    fn enforce_limit(&mut self) {
        if let Some(limit) = &mut self.standalone {
            let _ = limit.timer.wait();
            limit.enforce(&mut self.machine);
        }
    }
}

impl<M: Machine> MutEventSubscriber for Control<M> {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LINK => self.receive(ops),
            RECONCILED => self.reconciled(),
            STANDALONE => self.enforce_limit(),
            event if event >= MACHINE => {
                let updates = self.machine.serve(event - MACHINE);
                self.report_all(updates);
            }
            event => {
                if let (Some(port), Some(queue)) = (&mut self.port, event.checked_sub(PORT)) {
                    port.serve(queue as usize, &self.link);
                }
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.machine.watch(ops, MACHINE);
        watch(ops, self.reconciler.done(), RECONCILED);
        if let Some(port) = &self.port {
            port.watch(ops, PORT);
        }
        if let Some(limit) = &self.standalone {
            watch(ops, &limit.timer, STANDALONE);
        }
        self.link.watch(ops);
    }
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
