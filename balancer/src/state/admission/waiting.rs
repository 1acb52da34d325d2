//! Guests that wait for memory: first come, first served.
//!
//! A waiter goes before later waiters and before newcomers that need room in the same container: otherwise a guest
//! that needs much would wait for ever behind small ones. A waiter that needs room elsewhere delays no other guest.

use crate::guests::age_ms;
use crate::objects::WaitingObject;
use crate::state::admission::admit::Refusal;
use crate::state::{Balancer, State};
use protocol::message::Register;
use protocol::path::ContainerPath;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Guests that wait at a time.
const WAITING_MAX: usize = 256;

/// The guests that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(in crate::state) struct Waiters {
    queue: BTreeMap<u64, Waiter>,
    tickets: u64,
    /// There may be room for them.
    room: watch::Sender<()>,
}

#[derive(Debug)]
struct Waiter {
    guest: String,
    container: ContainerPath,
    floor_bytes: u64,
    /// The outermost container that had no room at the last try.
    at: ContainerPath,
    reason: String,
    since: Instant,
}

/// A place in the queue; it is given up when this is dropped.
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
        self.balancer.change(|state, now| {
            state.waits_no_more(Some(self.number), "waiting_ended", now);
            // The next waiter may be served.
            state.waiters.room_may_be();
        });
    }
}

impl Balancer {
    /// Puts a guest into the queue.
    ///
    /// # Errors
    /// The reason, when too many wait.
    pub fn wait(
        self: &Arc<Self>,
        about: &Register,
        at: ContainerPath,
        reason: &str,
    ) -> Result<Ticket, String> {
        self.change(|state, now| {
            let number = state.waiters.add(about, at, reason, now)?;
            state.events.push("waiting", Some(&about.name), Some(&about.container), reason);
            Ok(Ticket { balancer: Arc::clone(self), number })
        })
    }
}

impl Waiters {
    fn add(
        &mut self,
        about: &Register,
        at: ContainerPath,
        reason: &str,
        now: Instant,
    ) -> Result<u64, String> {
        if self.queue.len() >= WAITING_MAX {
            return Err(format!("{WAITING_MAX} guests wait already. {reason}"));
        }
        self.tickets += 1;
        let waiter = Waiter {
            guest: about.name.clone(),
            container: about.container.clone(),
            floor_bytes: about.floor_bytes,
            at,
            reason: reason.to_owned(),
            since: now,
        };
        self.queue.insert(self.tickets, waiter);
        Ok(self.tickets)
    }

    pub(in crate::state) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// No guest of this name waits already, and no earlier waiter needs what this guest would take.
    pub(in crate::state) fn check(&self, about: &Register, ticket: Option<u64>) -> Result<(), Refusal> {
        let others = || self.queue.iter().filter(|(number, _)| Some(**number) != ticket);
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

    /// A waiter was tried and refused again.
    pub(in crate::state) fn keep_waiting(&mut self, ticket: Option<u64>, refusal: &Refusal) {
        let waiter = ticket.and_then(|ticket| self.queue.get_mut(&ticket));
        if let (Some(waiter), Refusal::NoRoom { at, reason }) = (waiter, refusal) {
            (waiter.at, waiter.reason) = (at.clone(), reason.clone());
        }
    }

    /// Wakes the waiters: there may be room for them.
    pub(in crate::state) fn room_may_be(&self) {
        self.room.send_replace(());
    }

    pub(in crate::state) fn watch_room(&self) -> watch::Receiver<()> {
        self.room.subscribe()
    }

    /// The waiters in their order.
    pub(in crate::state) fn objects(&self, now: Instant) -> Vec<WaitingObject> {
        let object = |waiter: &Waiter| WaitingObject {
            guest: waiter.guest.clone(),
            container: waiter.container.clone(),
            floor_bytes: waiter.floor_bytes,
            reason: waiter.reason.clone(),
            waited_ms: age_ms(waiter.since, now),
        };
        self.queue.values().map(object).collect()
    }
}

impl State {
    /// A waiter was admitted, or gave up.
    pub(in crate::state) fn waits_no_more(&mut self, ticket: Option<u64>, kind: &str, now: Instant) {
        let Some(waiter) = ticket.and_then(|ticket| self.waiters.queue.remove(&ticket)) else { return };
        let waited = now.saturating_duration_since(waiter.since);
        let detail = format!("After {:.1} s", waited.as_secs_f64());
        self.events.push(kind, Some(&waiter.guest), Some(&waiter.container), &detail);
        if self.waiters.is_empty() && kind == "waiting_ended" {
            self.guests.still_empty(now);
        }
    }
}
