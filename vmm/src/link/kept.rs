//! The link to the balancer for as long as the guest runs. When the balancer is gone, what was said to it at the launch is said again,
//! as it is by now, until there is one that takes the guest back.
//!
//! ```text
//!            linked            Heard::Gone, register_again
//!  without --------> linked --------------------------------> sought
//!                      ^                                         |
//!                      +------------ Heard::TakenBack -----------+
//! ```

use super::{Again, Link};
use crate::events::watch;
use event_manager::{EventOps, Events};
use protocol::frames::FrameTable;
use protocol::message::{Balloon, Charge, FromVmm, Register, ToVmm};
use protocol::place::Place;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// How the guest reaches its balancer.
#[derive(Debug)]
pub struct Registration {
    /// Where the balancer lives.
    pub place: Place,
    /// What is said to it.
    pub register: Register,
}

/// What comes over the link.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// The balancer says something.
    Said(ToVmm),
    /// The balancer is gone: the guest is to be made ready to live without one, and registered again.
    Gone,
    /// A balancer took the guest back, with this answer.
    TakenBack(ToVmm),
}

#[derive(Debug)]
enum State {
    /// There is no balancer, or none to look for.
    Without,
    Linked(Link),
    Sought(Again),
}

/// A link that outlives its balancer.
#[derive(Debug)]
pub struct KeptLink {
    table: Arc<FrameTable>,
    /// By what its events are known.
    data: u32,
    registration: Option<Registration>,
    state: State,
}

impl KeptLink {
    /// No link yet. Events will come with this number.
    #[must_use]
    pub fn new(table: Arc<FrameTable>, data: u32) -> Self {
        Self { table, data, registration: None, state: State::Without }
    }

    /// A balancer took the guest. To be called before [`KeptLink::watch`].
    pub fn linked(&mut self, registration: Registration, link: Link) {
        self.registration = Some(registration);
        self.state = State::Linked(link);
    }

    /// Waits for what the balancer says, if there is one.
    pub fn watch(&self, ops: &mut EventOps<'_>) {
        if let State::Linked(link) = &self.state {
            watch(ops, link, self.data);
        }
    }

    /// What came next; `None` when nothing more did.
    pub fn hear(&mut self, ops: &mut EventOps<'_>) -> Option<Heard> {
        match &self.state {
            State::Without => None,
            State::Linked(link) => {
                let heard = next(link)?;
                if heard == Heard::Gone {
                    let _ = ops.remove(Events::empty(link));
                    self.state = State::Without;
                }
                Some(heard)
            }
            State::Sought(again) => {
                let (link, answer) = again.take()?;
                let _ = ops.remove(Events::empty(again.ready()));
                tracing::info!("The balancer took the guest back");
                watch(ops, &link, self.data);
                self.state = State::Linked(link);
                Some(Heard::TakenBack(answer))
            }
        }
    }

    /// The guest runs on inside its last target, and registers again as soon as there is a balancer. It runs already: it has not to wait
    /// for memory, however it was launched.
    pub fn register_again(&mut self, balloon: Balloon, ops: &mut EventOps<'_>) {
        tracing::warn!("The balancer is gone; the guest keeps its target and registers again");
        let Some(Registration { place, register }) = &self.registration else { return };
        let register = Register { comes_back: true, wait: false, balloon, ..register.clone() };
        match Again::start(place.clone(), register, Arc::clone(&self.table)) {
            Ok(again) => {
                watch(ops, again.ready(), self.data);
                self.state = State::Sought(again);
            }
            Err(error) => tracing::error!(%error, "Cannot look for a balancer"),
        }
    }

    /// Somebody else pays from now on. What is told to the next balancer is what this one said.
    pub fn charged(&mut self, charge: &Charge) {
        let Some(Registration { register, .. }) = &mut self.registration else { return };
        if register.container != charge.container {
            // They were limits of the container that it was launched in.
            register.limits = None;
        }
        register.container = charge.container.clone();
        register.charge_to.clone_from(&charge.charge_to);
        register.owners.clone_from(&charge.owners);
    }

    /// Tells the balancer, if there is one.
    pub fn send(&self, message: &FromVmm) {
        // A link that broke is noticed by its hang-up.
        if let Some(Err(error)) = self.tell(message) {
            tracing::debug!(%error, "Cannot tell the balancer");
        }
    }

    /// As [`Link::tell`]; `None` when there is no balancer.
    pub fn tell(&self, message: &FromVmm) -> Option<io::Result<bool>> {
        match &self.state {
            State::Linked(link) => Some(link.tell(message)),
            State::Without | State::Sought(_) => None,
        }
    }
}

/// What comes over this link; `None` when nothing does now.
fn next(link: &Link) -> Option<Heard> {
    loop {
        match link.receive() {
            Ok(Some(message)) => return Some(Heard::Said(message)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                tracing::warn!(%error, "The balancer sent something else than a message");
            }
            Ok(None) | Err(_) => return Some(Heard::Gone),
        }
    }
}

#[cfg(test)]
#[path = "kept_test.rs"]
mod tests;
