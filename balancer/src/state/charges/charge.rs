//! The payer of a guest: moving the guest, and charging another container for what it touches.
//!
//! ```text
//!  request --check--> guest attached, targets follow --Charge--> vmm: compare table, change owner --Charged-->
//! ```
//!
//! What was touched before the change is charged as it was; what is touched after the answer, as commanded. Between
//! the two it may be either.

use crate::guests::{ChargeDone, ChargeId, Guest, GuestSeq};
use crate::state::containers::Containers;
use crate::state::error::Reasons;
use crate::state::{Balancer, State, StateError};
use protocol::message::{Charge, OWNERS_MAX, ToVmm};
use protocol::path::ContainerPath;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A request waits this long for a `vmm`. The `vmm` carries the command out in any case, or registers again.
const DEADLINE: Duration = Duration::from_secs(5);

/// A charge command that is on its way to a `vmm`.
#[derive(Debug)]
pub struct PendingCharge {
    id: ChargeId,
    done: watch::Receiver<ChargeId>,
}

impl PendingCharge {
    /// Waits until the command was carried out. False if that took too long, or the guest left.
    pub async fn done(mut self) -> bool {
        let done = self.done.wait_for(|done| *done >= self.id);
        tokio::time::timeout(DEADLINE, done).await.is_ok_and(|done| done.is_ok())
    }
}

impl Balancer {
    /// Attaches a guest to another container, with all that it is charged for or without it. It no longer charges a
    /// container other than its own.
    ///
    /// # Errors
    /// When there is no such guest or container, a limit leaves no room, or its `vmm` takes no messages.
    pub fn move_guest(
        &self,
        name: &str,
        to: &ContainerPath,
        with_charges: bool,
    ) -> Result<PendingCharge, StateError> {
        self.change(|state, now| {
            let owner = state.check_move(name, to, with_charges)?;
            let guest = state.guests.existing_mut(name)?;
            let seq = guest.seq;
            let from = std::mem::replace(&mut guest.about.container, to.clone());
            guest.about.charge_to = None;
            guest.owner = owner;
            let detail = if with_charges {
                format!("From {from}, with all that it is charged for")
            } else {
                format!("From {from}, which pays for what it holds until the guest releases it")
            };
            state.events.push("guest_moved", Some(name), Some(to), &detail);
            let ordered = command(guest, &state.containers, None, with_charges);
            state.charge_pool(seq, with_charges);
            state.sweep(&from);
            state.adjust(now);
            Ok(ordered)
        })
    }

    /// Charges a container for what a guest touches from now on; its own again if that is `None`.
    ///
    /// # Errors
    /// When there is no such guest or container, a limit leaves no room, or its `vmm` takes no messages.
    pub fn charge(&self, name: &str, to: Option<&ContainerPath>) -> Result<PendingCharge, StateError> {
        self.change(|state, now| state.charge(name, to, None, now))
    }
}

/// True for what the operator allowed, and for what is inside the guest's own container.
fn may_charge(guest: &Guest, to: &ContainerPath) -> bool {
    to.is_inside(&guest.about.container) || guest.about.may_charge.iter().any(|above| to.is_inside(above))
}

impl State {
    /// A guest asks to charge a container, or its own again.
    pub(in crate::state) fn asked_to_charge(
        &mut self,
        seq: GuestSeq,
        question: u64,
        to: Option<&ContainerPath>,
        now: Instant,
    ) {
        let Some(guest) = self.guests.get_mut(seq) else { return };
        let refused = if guest.event_bucket.take(now).is_none() {
            Err("Too many questions: one in 250 ms is answered".to_owned())
        } else if let Some(to) = to.filter(|to| !may_charge(guest, to)) {
            Err(format!("{to} is not among the containers that this guest may charge"))
        } else {
            let name = guest.about.name.clone();
            self.charge(&name, to, Some(question), now).map(drop).map_err(|error| error.chain())
        };
        let (Err(reason), Some(guest)) = (refused, self.guests.get_mut(seq)) else { return };
        guest.event(&mut self.events, "charge_refused", &reason, now);
        guest.send(ToVmm::RefuseCharge { question, reason });
    }

    /// A guest carried a command out. The next scan sees the bytes that changed hands, and only then the request is
    /// answered.
    pub(in crate::state) fn charge_done(&mut self, seq: GuestSeq, id: ChargeId, moved_frames: u64) {
        let Some(guest) = self.guests.get_mut(seq) else { return };
        let seen = *guest.charge_done.borrow();
        let last = guest.charges_unseen.last().map_or(seen, |last| last.id.max(seen));
        if id > last && id <= guest.charge_sent {
            guest.charges_unseen.push(ChargeDone { id, moved_frames });
            guest.scan_wanted = true;
        }
    }

    fn charge(
        &mut self,
        name: &str,
        to: Option<&ContainerPath>,
        question: Option<u64>,
        now: Instant,
    ) -> Result<PendingCharge, StateError> {
        let own = self.guests.existing(name)?.about.container.clone();
        let to = to.filter(|to| **to != own);
        self.check_charge(name, to)?;
        let by = if question.is_some() { "by its own wish" } else { "by request" };
        let payer = to.unwrap_or(&own);
        let detail = format!("{payer} pays for what it touches from now on, {by}");
        // A guest has one event for each of its questions.
        self.events.push("charge_changed", Some(name), Some(payer), &detail);
        let guest = self.guests.existing_mut(name)?;
        guest.about.charge_to = to.cloned();
        let (seq, ordered) = (guest.seq, command(guest, &self.containers, question, false));
        self.charge_pool(seq, false);
        self.adjust(now);
        Ok(ordered)
    }

    /// All that speaks against a move; else the owner id of the container that it leads to.
    pub(in crate::state) fn check_move(
        &self,
        name: &str,
        to: &ContainerPath,
        with_charges: bool,
    ) -> Result<u16, StateError> {
        let guest = self.guests.existing(name)?;
        let owner = self.owner_of(to, "container")?;
        Reasons::default()
            .note(check_command(guest, owner, "container"))
            .note_all(self.room_for_move(guest, to, owner, with_charges))
            .note(self.check_domain_of_move(guest, to))
            .checked()?;
        Ok(owner)
    }

    /// All that speaks against charging a container other than the guest's own; else its owner id.
    pub(in crate::state) fn check_charge(
        &self,
        name: &str,
        to: Option<&ContainerPath>,
    ) -> Result<u16, StateError> {
        let guest = self.guests.existing(name)?;
        let owner = to.map_or(Ok(guest.owner), |to| self.owner_of(to, "charge_to"))?;
        Reasons::default()
            .note(check_command(guest, owner, "charge_to"))
            .note_all(to.map(|to| self.room_for_charge(guest, to)).unwrap_or_default())
            .checked()?;
        Ok(owner)
    }

    /// Owner id of a container that a request names in a field.
    fn owner_of(&self, path: &ContainerPath, field: &'static str) -> Result<u16, StateError> {
        let missing = || StateError::NoContainer { field, path: path.clone() };
        self.containers.tree().get(path).map(|node| node.owner).ok_or_else(missing)
    }

    /// Forgets the containers that a guest charges no longer, and those that nothing else needs.
    pub(in crate::state) fn forget_owners(&mut self, seq: GuestSeq) {
        let guest = self.guests.get(seq).filter(|guest| guest.owners.len() > 1);
        let Some(charging) = guest.map(|guest| self.containers.charging(guest)) else { return };
        let gone = self.guests.get_mut(seq).map(|guest| guest.forget_owners(charging)).unwrap_or_default();
        self.sweep_owners(&gone);
    }

    /// Does so for all guests.
    pub(in crate::state) fn forget_all_owners(&mut self) {
        let guests = self.guests.by_seq().filter(|guest| guest.owners.len() > 1);
        for seq in guests.map(|guest| guest.seq).collect::<Vec<_>>() {
            self.forget_owners(seq);
        }
    }
}

/// The `vmm` takes a command, and its owner fits among those that the guest's frames have.
fn check_command(guest: &Guest, owner: u16, field: &'static str) -> Result<(), StateError> {
    let name = || guest.about.name.clone();
    if guest.outbox.capacity() == 0 {
        return Err(StateError::Deaf(name()));
    }
    if guest.owners.len() >= OWNERS_MAX && !guest.owners.contains(&owner) {
        return Err(StateError::Owners { name: name(), field });
    }
    Ok(())
}

/// Commands the `vmm` of a guest to charge the container that the guest is to charge by what is known of it.
pub(in crate::state) fn command(
    guest: &mut Guest,
    containers: &Containers,
    question: Option<u64>,
    with_charges: bool,
) -> PendingCharge {
    let owner = containers.charging(guest);
    guest.owners.extend([guest.owner, owner]);
    guest.charge_sent.0 += 1;
    let charge = Charge {
        order: guest.charge_sent.0,
        question,
        container: guest.about.container.clone(),
        charge_to: guest.about.charge_to.clone(),
        owner,
        with_charges,
        owners: guest.owners.iter().copied().collect(),
    };
    guest.send(ToVmm::Charge(charge));
    PendingCharge { id: guest.charge_sent, done: guest.charge_done.subscribe() }
}
