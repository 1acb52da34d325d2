//! The link to the balancer for as long as the guest runs. When the balancer is gone, the guest repeats its
//! registration with its current state, until a balancer admits it again.
//!
//! ```text
//!            linked          Received::Closed, register_again
//!  without --------> linked --------------------------------> searching
//!                      ^                                         |
//!                      +--------- Received::Readmitted ----------+
//! ```

use super::Link;
use super::reregister::{HostClock, Reregistration};
use crate::epoll::watch;
use event_manager::{EventOps, Events};
use protocol::frames::FrameTable;
use protocol::message::{Balloon, Charge, FromVmm, Register, ToVmm};
use protocol::run_dir::RunDir;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// How the guest reaches its balancer.
#[derive(Debug)]
pub struct Registration {
    /// The balancer's folder.
    pub run_dir: RunDir,
    /// The message of the guest.
    pub register: Register,
}

/// What comes over the link.
#[derive(Debug, PartialEq)]
pub enum Received {
    /// A message of the balancer.
    Message(ToVmm),
    /// The balancer is gone: the guest has to be made ready to run without one, and registered again.
    Closed,
    /// A balancer admitted the guest again, with this answer.
    Readmitted(ToVmm),
}

#[derive(Debug)]
enum State {
    /// There is no balancer, and this guest looks for none.
    Without,
    Linked(Link),
    Searching(Reregistration),
}

/// A link that outlives its balancer.
#[derive(Debug)]
pub struct PersistentLink {
    table: Arc<FrameTable>,
    /// The number that its events carry.
    data: u32,
    registration: Option<Registration>,
    state: State,
}

impl PersistentLink {
    /// No link yet. Its events will carry this number.
    #[must_use]
    pub fn new(table: Arc<FrameTable>, data: u32) -> Self {
        Self { table, data, registration: None, state: State::Without }
    }

    /// A balancer admitted the guest. To be called before [`PersistentLink::watch`].
    pub fn linked(&mut self, registration: Registration, link: Link) {
        self.registration = Some(registration);
        self.state = State::Linked(link);
    }

    /// Waits for messages of the balancer, if there is one.
    pub fn watch(&self, ops: &mut EventOps<'_>) {
        if let State::Linked(link) = &self.state {
            watch(ops, link, self.data);
        }
    }

    /// What came next; `None` if nothing is left.
    pub fn receive(&mut self, ops: &mut EventOps<'_>) -> Option<Received> {
        match &self.state {
            State::Without => None,
            State::Linked(link) => {
                let received = next(link)?;
                if received == Received::Closed {
                    let _ = ops.remove(Events::empty(link));
                    self.state = State::Without;
                }
                Some(received)
            }
            State::Searching(search) => {
                let (link, answer) = search.take()?;
                let _ = ops.remove(Events::empty(search.ready()));
                tracing::info!("The balancer admitted the guest again");
                watch(ops, &link, self.data);
                self.state = State::Linked(link);
                Some(Received::Readmitted(answer))
            }
        }
    }

    /// The guest runs on inside its last target, and registers again as soon as there is a balancer. It runs already,
    /// so it does not wait for memory, however it was launched.
    pub fn register_again(&mut self, balloon: Balloon, ops: &mut EventOps<'_>) {
        tracing::warn!("The balancer is gone; the guest keeps its target and registers again");
        let Some(Registration { run_dir, register }) = &self.registration else { return };
        let register = Register { comes_back: true, wait: false, balloon, ..register.clone() };
        match Reregistration::start(run_dir.clone(), register, Arc::clone(&self.table), HostClock) {
            Ok(search) => {
                watch(ops, search.ready(), self.data);
                self.state = State::Searching(search);
            }
            Err(error) => tracing::error!(%error, "Cannot look for a balancer"),
        }
    }

    /// Another container is charged from now on: the next registration says so.
    pub fn charged(&mut self, charge: &Charge) {
        let Some(Registration { register, .. }) = &mut self.registration else { return };
        if register.container != charge.container {
            // They were limits of the container that the guest was launched in.
            register.limits = None;
        }
        register.container = charge.container.clone();
        register.charge_to.clone_from(&charge.charge_to);
        register.owners.clone_from(&charge.owners);
    }

    /// Sends a message to the balancer, if there is one.
    pub fn send(&self, message: &FromVmm) {
        // A link that broke is closed as well, which the event loop notices.
        if let Some(Err(error)) = self.try_send(message) {
            tracing::debug!(%error, "Cannot send to the balancer");
        }
    }

    /// As [`Link::try_send`]; `None` when there is no balancer.
    pub fn try_send(&self, message: &FromVmm) -> Option<io::Result<bool>> {
        match &self.state {
            State::Linked(link) => Some(link.try_send(message)),
            State::Without | State::Searching(_) => None,
        }
    }
}

/// What comes over this link; `None` if nothing does now.
fn next(link: &Link) -> Option<Received> {
    loop {
        match link.receive() {
            Ok(Some(message)) => return Some(Received::Message(message)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                tracing::warn!(%error, "The balancer sent a packet that is not a message");
            }
            Ok(None) | Err(_) => return Some(Received::Closed),
        }
    }
}

#[cfg(test)]
#[path = "persistent_test.rs"]
mod tests;
