//! Places of a socket: how many connections it has, how many of them one client may hold, and which of them makes room
//! for a new one.
//!
//! ```text
//!   new connection --> its client holds EACH of them --> the oldest of this client that waits is closed; none: refused
//!                  \-> the socket has MAX of them -----> the oldest that waits of the client with the most is closed;
//!                                                        none: the oldest of that client; it has no more: refused
//! ```
//!
//! A connection waits while it is its client's turn to send something, or to read an answer that is complete. So a
//! client that sends half a request, in however many connections, makes room for one that sends a whole request.

use protocol::sync::MutexExt;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A request's header must arrive within this, counted from the connection or from its first byte.
pub(super) const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may be idle between two requests: longer than pools of clients keep them, 90 s at most (Go's
/// `net/http`).
pub(super) const IDLE_DEADLINE: Duration = Duration::from_secs(120);

/// What counts as one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// A process at the other end of a Unix socket: its user and its number.
    Process(u32, i32),
    /// A host; of IPv6 the network of 64 bits, which one host has for itself.
    Host(IpAddr),
}

impl Client {
    /// The client at an address.
    pub fn host(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                Self::Host(Ipv6Addr::from_bits(network).into())
            }
            v4 => Self::Host(v4),
        }
    }
}

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Nothing since its last answer.
    Idle,
    /// Its next request's header is not complete.
    Header,
    /// Its request's body is not complete.
    Body,
    /// Its request is carried out.
    Working,
    /// It is sent events.
    Streaming,
    /// It has to end: its place is another connection's.
    Evicted,
}

impl Doing {
    /// True if it is the client's turn.
    fn waits(self) -> bool {
        matches!(self, Self::Idle | Self::Header | Self::Body)
    }
}

#[derive(Debug, Clone, Copy)]
struct Phase {
    doing: Doing,
    since: Instant,
}

/// A connection that holds a place.
#[derive(Debug)]
pub(super) struct Connection {
    number: u64,
    client: Client,
    phase: watch::Sender<Phase>,
    places: Arc<Places>,
}

/// The places of one socket.
#[derive(Debug)]
pub struct Places {
    max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    /// By number: the oldest first.
    connections: BTreeMap<u64, Arc<Connection>>,
}

impl Places {
    /// So many places.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: Mutex::default() })
    }

    /// The most connections of one client.
    fn each(&self) -> usize {
        (self.max / 2).max(1)
    }

    /// The most streams of events, of all clients and of one. Streams are never closed for a new connection of another
    /// client, as long as anything else can be.
    pub(super) fn streams(&self) -> (usize, usize) {
        ((self.max / 2).max(1), (self.max / 4).max(1))
    }

    /// A place for a new connection. `None` if there is none, and no connection makes room.
    pub(super) fn take(self: &Arc<Self>, client: Client) -> Option<Place> {
        let mut held = self.held.acquire();
        if held.of(client).count() >= self.each() {
            let oldest = held.of(client).find(|connection| connection.doing().waits())?.number;
            held.evict(oldest);
        } else if held.connections.len() >= self.max {
            let victim = held.victim(client)?;
            held.evict(victim);
        }
        let number = held.next;
        held.next += 1;
        let phase = watch::Sender::new(Phase { doing: Doing::Header, since: Instant::now() });
        let connection = Arc::new(Connection { number, client, phase, places: Arc::clone(self) });
        held.connections.insert(number, Arc::clone(&connection));
        Some(Place(connection))
    }
}

impl Held {
    fn of(&self, client: Client) -> impl Iterator<Item = &Arc<Connection>> {
        self.connections.values().filter(move |connection| connection.client == client)
    }

    /// The connection that makes room for one of `newcomer`.
    fn victim(&self, newcomer: Client) -> Option<u64> {
        let mut counts: BTreeMap<Client, usize> = BTreeMap::new();
        for connection in self.connections.values() {
            *counts.entry(connection.client).or_default() += 1;
        }
        let count = |client: Client| counts.get(&client).copied().unwrap_or(0);
        // Of those whose client holds the most, the oldest.
        let oldest = |candidates: &mut dyn Iterator<Item = &Arc<Connection>>| {
            let of_most = candidates.map(|one| (count(one.client), Reverse(one.number))).max();
            of_most.map(|(count, Reverse(number))| (number, count))
        };
        let all = || self.connections.values();
        if let Some((number, _)) = oldest(&mut all().filter(|connection| connection.doing().waits())) {
            return Some(number);
        }
        // All of them work. A client that holds more than the newcomer would gives one up.
        let (number, held) = oldest(&mut all())?;
        (held > count(newcomer) + 1).then_some(number)
    }

    fn evict(&mut self, number: u64) {
        if let Some(connection) = self.connections.remove(&number) {
            connection.enter(Doing::Evicted);
        }
    }
}

impl Connection {
    fn doing(&self) -> Doing {
        self.phase.borrow().doing
    }

    fn enter(&self, doing: Doing) {
        self.phase.send_modify(|phase| {
            if phase.doing != Doing::Evicted {
                *phase = Phase { doing, since: Instant::now() };
            }
        });
    }

    fn leave(&self, doing: Doing, next: Doing) {
        if self.doing() == doing {
            self.enter(next);
        }
    }

    /// Bytes arrived: if nothing else is under way, they begin a request.
    pub(super) fn received(&self) {
        self.leave(Doing::Idle, Doing::Header);
    }

    /// A request's header is complete.
    pub(super) fn begin(&self) {
        self.enter(Doing::Working);
    }

    /// Its answer is complete, unless it is a stream.
    pub(super) fn end(&self) {
        self.leave(Doing::Body, Doing::Idle);
        self.leave(Doing::Working, Doing::Idle);
    }

    /// Its body is being read, until [`read`](Self::read).
    pub(super) fn reads(&self) {
        self.leave(Doing::Working, Doing::Body);
    }

    /// Its body is complete.
    pub(super) fn read(&self) {
        self.leave(Doing::Body, Doing::Working);
    }

    /// Its answer will be a stream. `None` if there are too many of them.
    pub(super) fn stream(self: &Arc<Self>) -> Option<Streaming> {
        let held = self.places.held.acquire();
        let streams = |client: Option<Client>| {
            let streaming = held.connections.values().filter(|other| other.doing() == Doing::Streaming);
            streaming.filter(|other| client.is_none_or(|client| client == other.client)).count()
        };
        let (all, each) = self.places.streams();
        if streams(None) >= all || streams(Some(self.client)) >= each {
            return None;
        }
        self.enter(Doing::Streaming);
        Some(Streaming(Arc::clone(self)))
    }

    /// Waits until the connection has to end: it was given up for another one, or its client was silent for too long.
    pub(super) async fn ended(&self) {
        let mut phase = self.phase.subscribe();
        loop {
            let Phase { doing, since } = *phase.borrow_and_update();
            let deadline = match doing {
                Doing::Evicted => return,
                Doing::Header => Some(since + HEADER_DEADLINE),
                Doing::Idle => Some(since + IDLE_DEADLINE),
                // The body's reader has a deadline of its own, which it answers.
                Doing::Body | Doing::Working | Doing::Streaming => None,
            };
            let changed = phase.changed();
            match deadline {
                Some(deadline) => tokio::select! {
                    _ = changed => {}
                    () = tokio::time::sleep_until(deadline) => return,
                },
                None => {
                    // The sender is a field of this.
                    let _ = changed.await;
                }
            }
        }
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(pub(super) Arc<Connection>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.places.held.acquire().connections.remove(&self.0.number);
    }
}

/// A stream that is being sent, until it is dropped.
#[derive(Debug)]
pub(super) struct Streaming(Arc<Connection>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.leave(Doing::Streaming, Doing::Idle);
    }
}

#[cfg(test)]
#[path = "places_test.rs"]
mod tests;
