//! Guests that wait for memory: first come, first served.
//!
//! Waiters are served first come, first served, and ahead of newcomers that would not have to wait. Otherwise small
//! guests could starve a large one. A waiter only delays guests that need memory of the same container.

use crate::objects::WaitingObject;
use crate::state::admission::admit::Refusal;
use crate::state::{Balancer, State};
use protocol::message::Register;
use protocol::path::ContainerPath;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Guests that may wait at the same time.
const WAITING_MAX: usize = 256;

#[derive(Debug)]
pub(in crate::state) struct Waiter {
    guest: String,
    container: ContainerPath,
    floor_bytes: u64,
    /// The outermost container that had no room at the last try.
    at: ContainerPath,
    reason: String,
    since: Instant,
}

/// The place of a waiter, which is given up when this is dropped.
#[derive(Debug)]
pub struct Ticket {
    balancer: Arc<Balancer>,
    number: u64,
}

impl Ticket {
    /// The number that a further try names.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let state = &mut *self.balancer.state();
        state.waits_no_more(Some(self.number), "waiting_ended");
        // The waiter behind it may be next.
        state.room.send_replace(());
    }
}

impl Balancer {
    /// Adds a guest to the waiters.
    ///
    /// # Errors
    /// The reason, when there are too many.
    pub fn wait(
        self: &Arc<Self>,
        about: &Register,
        at: ContainerPath,
        reason: &str,
    ) -> Result<Ticket, String> {
        let state = &mut *self.state();
        if state.waiting.len() >= WAITING_MAX {
            return Err(format!("{WAITING_MAX} guests wait already. {reason}"));
        }
        state.events.push("waiting", Some(&about.name), Some(&about.container), reason);
        state.tickets += 1;
        let waiter = Waiter {
            guest: about.name.clone(),
            container: about.container.clone(),
            floor_bytes: about.floor_bytes,
            at,
            reason: reason.to_owned(),
            since: Instant::now(),
        };
        state.waiting.insert(state.tickets, waiter);
        Ok(Ticket { balancer: Arc::clone(self), number: state.tickets })
    }

    /// Changes when there may be room for a waiter: at each tick, and whenever a limit changes or a guest leaves.
    #[must_use]
    pub fn watch_room(&self) -> watch::Receiver<()> {
        self.state().room.subscribe()
    }
}

impl State {
    /// Checks that no guest of this name waits already, and that no earlier waiter needs the memory that this one would
    /// take.
    pub(in crate::state) fn check_waiting(
        &self,
        about: &Register,
        ticket: Option<u64>,
    ) -> Result<(), Refusal> {
        let others = || self.waiting.iter().filter(|(number, _)| Some(**number) != ticket);
        if others().any(|(_, waiter)| waiter.guest == about.name) {
            return Err(Refusal::Never(format!("A guest {:?} waits for memory already", about.name)));
        }
        let earlier = others().find(|(number, waiter)| {
            ticket.is_none_or(|own| **number < own) && about.container.is_inside(&waiter.at)
        });
        let Some((_, first)) = earlier.filter(|_| !about.comes_back) else { return Ok(()) };
        let reason = format!("Guest {:?} waits for memory of {} and came first", first.guest, first.at);
        Err(Refusal::NoRoom { at: first.at.clone(), reason })
    }

    /// Notes why a waiter was not admitted.
    pub(in crate::state) fn keep_waiting(&mut self, ticket: Option<u64>, refusal: &Refusal) {
        let waiter = ticket.and_then(|ticket| self.waiting.get_mut(&ticket));
        if let (Some(waiter), Refusal::NoRoom { at, reason }) = (waiter, refusal) {
            (waiter.at, waiter.reason) = (at.clone(), reason.clone());
        }
    }

    /// Removes a waiter that was admitted or gave up.
    pub(in crate::state) fn waits_no_more(&mut self, ticket: Option<u64>, kind: &str) {
        let Some(waiter) = ticket.and_then(|ticket| self.waiting.remove(&ticket)) else { return };
        let detail = format!("After {:.1} s", waiter.since.elapsed().as_secs_f64());
        self.events.push(kind, Some(&waiter.guest), Some(&waiter.container), &detail);
        if self.guests.is_empty() && self.waiting.is_empty() && kind == "waiting_ended" {
            self.empty_since = Some(Instant::now());
        }
    }

    /// The waiters in their order.
    pub(in crate::state) fn waiting_objects(&self) -> Vec<WaitingObject> {
        let object = |waiter: &Waiter| WaitingObject {
            guest: waiter.guest.clone(),
            container: waiter.container.clone(),
            floor_bytes: waiter.floor_bytes,
            reason: waiter.reason.clone(),
            waited_ms: crate::state::tick::adjust::since(waiter.since),
        };
        self.waiting.values().map(object).collect()
    }
}
