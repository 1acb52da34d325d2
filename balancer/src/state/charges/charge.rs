//! Who pays for a guest: moving it, and charging somebody else for what it touches.
//!
//! ```text
//!  request --check--> guest attached, targets follow --Charge--> vmm: compare table with kernel, change owner --Charged-->
//! ```
//!
//! What was touched before the change is charged as it was; what is touched after the answer, as ordered. Between the two
//! it may be either.

use crate::guests::{CarriedOut, Guest};
use crate::state::error::Reasons;
use crate::state::{Balancer, State, StateError};
use protocol::message::{Charge, OWNERS_MAX, ToVmm};
use protocol::path::ContainerPath;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A `vmm` is waited for so long. It carries the order out in any case, or registers again.
const DEADLINE: Duration = Duration::from_secs(5);

/// An order that is on its way to a `vmm`.
#[derive(Debug)]
pub struct Ordered {
    order: u64,
    carried_out: watch::Receiver<u64>,
}

impl Ordered {
    /// Waits until the order was carried out. False if that took too long, or the guest left.
    pub async fn done(mut self) -> bool {
        let done = self.carried_out.wait_for(|order| *order >= self.order);
        tokio::time::timeout(DEADLINE, done).await.is_ok_and(|done| done.is_ok())
    }
}

impl Balancer {
    /// Attaches a guest to another container, with all that it is charged for or without it. Whom it charges beside its
    /// container is over with that.
    ///
    /// # Errors
    /// When there is no such guest or container, a limit leaves no room, or its `vmm` does not listen.
    pub fn move_guest(
        &self,
        name: &str,
        to: &ContainerPath,
        with_charges: bool,
    ) -> Result<Ordered, StateError> {
        let state = &mut *self.state();
        let owner = state.check_move(name, to, with_charges)?;
        let guest = state.guests.get_mut(name).expect("looked up above");
        let from = std::mem::replace(&mut guest.about.container, to.clone());
        guest.about.charge_to = None;
        guest.owner = owner;
        let detail = match with_charges {
            true => format!("From {from}, with all that it is charged for"),
            false => format!("From {from}, which pays for what it holds until that is given back"),
        };
        state.events.push("guest_moved", Some(name), Some(to), &detail);
        let ordered = state.order(name, None, with_charges);
        state.charge_pool(name, with_charges);
        state.sweep(&from);
        state.adjust();
        Ok(ordered)
    }

    /// Charges a container for what a guest touches from now on; its own again if that is `None`.
    ///
    /// # Errors
    /// When there is no such guest or container, a limit leaves no room, or its `vmm` does not listen.
    pub fn charge(&self, name: &str, to: Option<&ContainerPath>) -> Result<Ordered, StateError> {
        self.state().charge(name, to, None)
    }

    /// A guest asks to charge a container, or its own again.
    pub(in crate::state) fn asked_to_charge(
        state: &mut State,
        name: &str,
        question: u64,
        to: Option<&ContainerPath>,
    ) {
        let Some(guest) = state.guests.get_mut(name) else { return };
        let refused = if guest.budget.take(Instant::now()).is_none() {
            Err("Too many questions: one in 250 ms is answered".to_owned())
        } else if let Some(to) = to.filter(|to| !may_charge(guest, to)) {
            Err(format!("{to} is not among the containers that this guest may charge"))
        } else {
            state.charge(name, to, Some(question)).map(drop).map_err(|error| error.chain())
        };
        if let Err(reason) = refused {
            state.guest_event("charge_refused", name, &reason);
            if let Some(guest) = state.guests.get(name) {
                guest.say(ToVmm::RefuseCharge { question, reason });
            }
        }
    }

    /// A guest carried an order out. The bytes that changed hands are seen before anybody is told that they did.
    pub(in crate::state) fn carried_out(state: &mut State, name: &str, order: u64, moved_frames: u64) {
        let Some(guest) = state.guests.get_mut(name) else { return };
        let last = guest.unseen.last().map_or(0, |last| last.order).max(*guest.carried_out.borrow());
        if order > last && order <= guest.orders {
            guest.unseen.push(CarriedOut { order, moved_frames });
            guest.look_wanted = true;
        }
    }
}

/// What the operator allowed, and what is inside its own container.
fn may_charge(guest: &Guest, to: &ContainerPath) -> bool {
    to.is_inside(&guest.about.container) || guest.about.may_charge.iter().any(|above| to.is_inside(above))
}

impl State {
    fn charge(
        &mut self,
        name: &str,
        to: Option<&ContainerPath>,
        question: Option<u64>,
    ) -> Result<Ordered, StateError> {
        let own = self.existing(name)?.about.container.clone();
        let to = to.filter(|to| **to != own);
        self.check_charge(name, to)?;
        let by = if question.is_some() { "by its own wish" } else { "by request" };
        let whom = to.unwrap_or(&own);
        let detail = format!("{whom} pays for what it touches from now on, {by}");
        // A guest has one event for each of its questions.
        self.events.push("charge_changed", Some(name), Some(whom), &detail);
        self.guests.get_mut(name).expect("looked up above").about.charge_to = to.cloned();
        let ordered = self.order(name, question, false);
        self.charge_pool(name, false);
        self.adjust();
        Ok(ordered)
    }

    /// A guest of this name.
    pub(in crate::state) fn existing(&self, name: &str) -> Result<&Guest, StateError> {
        self.guests.get(name).ok_or_else(|| StateError::NoGuest(name.to_owned()))
    }

    /// All that speaks against a move; else the owner id of where it leads.
    pub(in crate::state) fn check_move(
        &self,
        name: &str,
        to: &ContainerPath,
        with_charges: bool,
    ) -> Result<u16, StateError> {
        let guest = self.existing(name)?;
        let owner = self.owner_of(to, "container")?;
        Reasons::default()
            .note(self.check_order(guest, owner, "container"))
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
        let guest = self.existing(name)?;
        let owner = to.map_or(Ok(guest.owner), |to| self.owner_of(to, "charge_to"))?;
        Reasons::default()
            .note(self.check_order(guest, owner, "charge_to"))
            .note_all(to.map(|to| self.room_for_charge(guest, to)).unwrap_or_default())
            .checked()?;
        Ok(owner)
    }

    /// Owner id of a container that a request names in a field.
    fn owner_of(&self, path: &ContainerPath, field: &'static str) -> Result<u16, StateError> {
        let missing = || StateError::NoContainer { field, path: path.clone() };
        self.tree.get(path).map(|node| node.owner).ok_or_else(missing)
    }

    /// An order is taken by the `vmm`, and its owner fits among those that the guest's frames have.
    fn check_order(&self, guest: &Guest, owner: u16, field: &'static str) -> Result<(), StateError> {
        let name = || guest.about.name.clone();
        if guest.outbox.capacity() == 0 {
            return Err(StateError::Deaf(name()));
        }
        if guest.owners.len() >= OWNERS_MAX && !guest.owners.contains(&owner) {
            return Err(StateError::Owners { name: name(), field });
        }
        Ok(())
    }

    /// Tells a `vmm` who pays, by what is known of its guest.
    pub(in crate::state) fn order(
        &mut self,
        name: &str,
        question: Option<u64>,
        with_charges: bool,
    ) -> Ordered {
        let owner = self.charging(&self.guests[name]);
        let guest = self.guests.get_mut(name).expect("a guest that is there is given an order");
        guest.owners.extend([guest.owner, owner]);
        guest.orders += 1;
        let charge = Charge {
            order: guest.orders,
            question,
            container: guest.about.container.clone(),
            charge_to: guest.about.charge_to.clone(),
            owner,
            with_charges,
            owners: guest.owners.iter().copied().collect(),
        };
        guest.say(ToVmm::Charge(charge));
        Ordered { order: guest.orders, carried_out: guest.carried_out.subscribe() }
    }

    /// Owner id of whom a guest charges now.
    pub(in crate::state) fn charging(&self, guest: &Guest) -> u16 {
        let node = guest.about.charge_to.as_ref().and_then(|to| self.tree.get(to));
        node.map_or(guest.owner, |node| node.owner)
    }

    /// Forgets whom a guest charges no longer, and containers that nothing else needs.
    pub(in crate::state) fn forget_owners(&mut self, name: &str) {
        let Some(guest) = self.guests.get(name).filter(|guest| guest.owners.len() > 1) else { return };
        let charging = self.charging(guest);
        let gone = self.guests.get_mut(name).expect("looked up above").forget_owners(charging);
        self.sweep_owners(&gone);
    }

    /// Removes containers with these ids that nothing needs any more.
    pub(in crate::state) fn sweep_owners(&mut self, owners: &[u16]) {
        let paths: Vec<ContainerPath> = self
            .tree
            .iter()
            .filter(|(_, node)| node.transient && owners.contains(&node.owner))
            .map(|(path, _)| path.clone())
            .collect();
        paths.iter().for_each(|path| self.sweep(path));
    }
}
