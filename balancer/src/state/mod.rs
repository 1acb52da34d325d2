//! The state of a running balancer and everything that changes it.
//!
//! ```text
//!   REST, guests, clock --event--> [ State: tree, guests, events ] --observe--> policy::decide --targets--> guests
//!                                        |  a change of the tree is committed to the journal first
//! ```
//!
//! One lock holds all of it, and no hold waits for another process: a guest's messages wait in its outbox. Each method
//! is one event; it leaves the state whole or, when it fails, as it was.

mod admission;
mod charges;
mod error;
mod limits;
mod pool;
mod tick;
mod views;

pub use admission::admit::{Admission, Candidate, Refusal};
pub use admission::objects::{ObjectUsage, ObjectsObject};
pub use admission::waiting::{Ticket, WaitingObject};
pub use charges::charge::Ordered;
pub use error::StateError;
pub use limits::policy::{ContainerExplanation, KnobsPatch, PolicyObject};
pub use limits::preview::{PlanObject, PlannedTarget};
pub use pool::granules::Served;
pub use tick::attach::{Attach, VMM_VARIABLE, name_of as attach_name};
pub use views::{ContainerObject, FramesObject, GuestObject, HostObject, MergeObject, SourceObject};

use crate::events::{Event, Events};
use crate::guests::{self, Guest};
use crate::journal::Journal;
use crate::pool::{Bindings, Library, Pool, PoolShortfall};
use crate::tree::Tree;
use accounting::{ContainerId, System};
use host::meminfo::HostSample;
use policy::{Budget, HostMemory, Knobs, Shortfall};
use protocol::objects::ObjectKind;
use protocol::path::ContainerPath;
use protocol::place::Place;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The balancer's state behind its lock.
#[derive(Debug)]
pub struct Balancer {
    state: Mutex<State>,
    /// Reads from the disk, and so is not behind the lock.
    library: Arc<Library>,
    /// Held by who looks at the pool because somebody asked.
    looking: tokio::sync::Mutex<()>,
    /// A look at a guest's table may be due.
    look_wanted: tokio::sync::Notify,
    /// Granules came or went.
    granules_changed: tokio::sync::Notify,
    /// Somebody gave what others wait for.
    freed: tokio::sync::Notify,
    /// Where helpers find this balancer.
    place: OnceLock<Place>,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    journal: Journal,
    guests: BTreeMap<String, Guest>,
    events: Events,
    host: HostSample,
    accounting: System,
    knobs: Knobs,
    /// The time between two turns, for whoever makes them.
    interval: watch::Sender<Duration>,
    /// What the policy remembers of the host.
    memory: HostMemory,
    /// What guests might hold together by the last plan.
    budget: Option<Budget>,
    /// When tasks of the host last stalled for memory.
    stalled_at: Option<Instant>,
    shortfalls: Vec<Shortfall>,
    /// Somebody is to grow once others gave what they were asked for.
    waits: bool,
    bindings: Bindings,
    pool: Pool,
    pool_shortfalls: Vec<PoolShortfall>,
    /// Events that images may cause.
    pool_budget: guests::Budget,
    /// Why guests that are merged may be so with others, as told last.
    merge_exposed: Option<String>,
    /// When it was last told that a guest waits for room in the pool.
    granules_full_at: Option<Instant>,
    /// Guests that wait for memory, in the order in which they came.
    waiting: BTreeMap<u64, admission::waiting::Waiter>,
    tickets: u64,
    /// There may be room for them.
    room: watch::Sender<()>,
    /// Limits on objects that are exceeded, or were until lately, and when they last were.
    exceeded: BTreeMap<(ContainerPath, ObjectKind), Instant>,
    sessions: u64,
    started_at: Instant,
    /// When the last guest left; `None` while there is one, or when there never was.
    empty_since: Option<Instant>,
    /// True until containers without guests, left over from before a restart, were removed.
    sweep_due: bool,
}

impl Balancer {
    /// A balancer with the tree and the bindings that its journal held, the accounting system of the host, its images, and the
    /// knobs of the policy.
    #[must_use]
    pub fn new(
        journal: Journal,
        (tree, bindings): (Tree, Bindings),
        accounting: System,
        library: Library,
        knobs: Knobs,
    ) -> Self {
        let mut events = Events::default();
        events.push(
            "balancer_started",
            None,
            None,
            &format!("The journal holds {} containers", tree.iter().count()),
        );
        let mut state = State {
            tree,
            journal,
            guests: BTreeMap::new(),
            events,
            host: HostSample::take(),
            accounting,
            knobs,
            interval: watch::Sender::new(Duration::from_millis(knobs.interval_ms)),
            memory: HostMemory::default(),
            budget: None,
            stalled_at: None,
            shortfalls: vec![],
            waits: false,
            bindings,
            pool: Pool::new(accounting, Instant::now()),
            pool_shortfalls: vec![],
            pool_budget: guests::Budget::new(Instant::now()),
            merge_exposed: None,
            granules_full_at: None,
            waiting: BTreeMap::new(),
            tickets: 0,
            room: watch::Sender::new(()),
            exceeded: BTreeMap::new(),
            sessions: 0,
            started_at: Instant::now(),
            empty_since: None,
            sweep_due: true,
        };
        state.make_common();
        Self {
            state: Mutex::new(state),
            library: Arc::new(library),
            looking: tokio::sync::Mutex::default(),
            look_wanted: tokio::sync::Notify::new(),
            granules_changed: tokio::sync::Notify::new(),
            freed: tokio::sync::Notify::new(),
            place: OnceLock::new(),
        }
    }

    /// Its images.
    #[must_use]
    pub fn library(&self) -> Arc<Library> {
        Arc::clone(&self.library)
    }

    /// Ends when granules came or went after this call.
    pub fn granules_changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.granules_changed.notified()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug that the log tells of; the state is changed in whole steps, so it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events after the one with this id.
    #[must_use]
    pub fn events_since(&self, id: u64) -> Vec<Event> {
        self.state().events.since(id).cloned().collect()
    }

    /// The first few of them.
    #[must_use]
    pub fn events_after(&self, id: u64, most: usize) -> Vec<Event> {
        self.state().events.since(id).take(most).cloned().collect()
    }

    /// The id of the last event, to wait for the next.
    #[must_use]
    pub fn watch_events(&self) -> watch::Receiver<u64> {
        self.state().events.watch()
    }

    /// How long there has been no guest; and whether there ever was one.
    #[must_use]
    pub fn idle(&self) -> (std::time::Duration, bool) {
        let state = self.state();
        match state.empty_since {
            _ if !state.guests.is_empty() || !state.waiting.is_empty() => (std::time::Duration::ZERO, true),
            Some(since) => (since.elapsed(), true),
            None => (state.started_at.elapsed(), false),
        }
    }
}

impl State {
    /// Commits a tree to the journal and makes it the tree.
    fn adopt(&mut self, next: Tree) -> Result<(), StateError> {
        if next != self.tree {
            self.journal.commit(&self.tree, &next)?;
            let before = std::mem::replace(&mut self.tree, next);
            for (_, gone) in before.iter().filter(|(path, _)| self.tree.get(path).is_none()) {
                self.pool.remove(ContainerId(gone.owner));
            }
        }
        Ok(())
    }

    /// Guests in a container and in all containers inside it.
    fn guests_inside<'a>(&'a self, path: &'a ContainerPath) -> impl Iterator<Item = &'a Guest> {
        self.guests.values().filter(move |guest| Tree::is_inside(&guest.about.container, path))
    }

    /// Removes a container and those above it that nothing needs any more.
    fn sweep(&mut self, from: &ContainerPath) {
        let mut next = self.tree.clone();
        // One that still pays for frames is needed as well.
        let is_needed = |path: &ContainerPath| {
            let owner = self.tree.get(path).map(|node| node.owner);
            self.bindings.iter().any(|(_, payer)| payer == path)
                || self.guests.values().any(|guest| {
                    guest.about.container == *path || owner.is_some_and(|owner| guest.owners.contains(&owner))
                })
        };
        let removed = next.sweep(from, is_needed);
        if removed.is_empty() {
            return;
        }
        match self.adopt(next) {
            Ok(()) => {
                for path in removed {
                    self.events.push("container_removed", None, Some(&path), "Nothing is inside it any more");
                }
            }
            // It stays, empty, and goes with the sweep after the next start.
            Err(error) => tracing::error!(error = %error.chain(), "an empty container could not be removed"),
        }
    }
}
