//! Guests that wait for memory: first come, first served.
//!
//! Whoever came first and waits for room in a container goes before all who would take of it, those that do not wait included: else
//! a guest that needs much would wait for ever behind small ones. Who waits for room elsewhere is in nobody's way.

use crate::state::admission::admit::Refusal;
use crate::state::{Balancer, State};
use protocol::message::Register;
use protocol::path::ContainerPath;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use utoipa::ToSchema;

/// Guests that wait at a time.
const WAITING_MAX: usize = 256;

/// A guest that waits for memory.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WaitingObject {
    /// Its name.
    pub guest: String,
    /// The container that it is to be attached to.
    #[schema(value_type = String)]
    pub container: ContainerPath,
    /// What it needs to start, bytes.
    pub floor_bytes: u64,
    /// What is missing and who holds it, by the last try.
    pub reason: String,
    /// How long it has waited, milliseconds.
    pub waited_ms: u64,
}

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

/// A place among those who wait; it is given up when this goes.
#[derive(Debug)]
pub struct Ticket {
    balancer: Arc<Balancer>,
    number: u64,
}

impl Ticket {
    /// What to show when it is tried again.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let state = &mut *self.balancer.state();
        state.waits_no_more(Some(self.number), "waiting_ended");
        // Who came behind may be next.
        state.room.send_replace(());
    }
}

impl Balancer {
    /// Takes a guest among those who wait.
    ///
    /// # Errors
    /// The reason, when too many do.
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

    /// Changes when there may be room for who waits: at each turn, and whenever a limit changes or a guest leaves.
    #[must_use]
    pub fn watch_room(&self) -> watch::Receiver<()> {
        self.state().room.subscribe()
    }
}

impl State {
    /// Nobody of this name waits already, and nobody who came before waits for what this one would take.
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

    /// One who waits was tried in vain.
    pub(in crate::state) fn keep_waiting(&mut self, ticket: Option<u64>, refusal: &Refusal) {
        let waiter = ticket.and_then(|ticket| self.waiting.get_mut(&ticket));
        if let (Some(waiter), Refusal::NoRoom { at, reason }) = (waiter, refusal) {
            (waiter.at, waiter.reason) = (at.clone(), reason.clone());
        }
    }

    /// One who waited is in, or gave up.
    pub(in crate::state) fn waits_no_more(&mut self, ticket: Option<u64>, kind: &str) {
        let Some(waiter) = ticket.and_then(|ticket| self.waiting.remove(&ticket)) else { return };
        let detail = format!("After {:.1} s", waiter.since.elapsed().as_secs_f64());
        self.events.push(kind, Some(&waiter.guest), Some(&waiter.container), &detail);
        if self.guests.is_empty() && self.waiting.is_empty() && kind == "waiting_ended" {
            self.empty_since = Some(Instant::now());
        }
    }

    /// Those who wait, in their order.
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
