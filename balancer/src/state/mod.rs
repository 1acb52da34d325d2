//! The state of a running balancer, and everything that changes it.
//!
//! ```text
//!   REST, guests, clock --> change, under the lock --------------------> effects, without the lock
//!                            |  State: containers, guests, waiters, pool     end a process, read /proc,
//!                            |  a change of containers is committed to       wake other tasks
//!                            |  the journal first, also under the lock
//!                            +-- adjust: observe -> policy::decide -> targets into outboxes of guests
//! ```
//!
//! One lock holds all of it. Nothing under it waits for another process or reads `/proc`; the time is a value. Each
//! change leaves the state whole or, when it fails, as it was.
//!
//! What happens under the lock although it leaves the state:
//!
//! - The journal: the order of the commits must be the order of the changes, and a change that is answered must be on
//!   disk.
//! - Messages to guests: they go into the outbox of the guest, a bounded channel. Under the lock they are in the order
//!   of the decisions: a target cannot overtake a newer one, and the state never shows a message as sent that was not.
//!   An outbox that is full refuses the message at once; what matters is sent again with the next tick.
//!
//! Between a reading of the state and the change that follows from it, and between a change and its effects, other
//! changes may happen. So:
//!
//! - A guest may have left, and another one of its name may have come: samples and scans name a guest by its number
//!   ([`GuestSeq`](crate::guests::GuestSeq)), which is never given again. What belongs to a guest that left is dropped.
//! - A newer sample may be there: a sample that is older than the one in the state is dropped.
//! - A process that is to be killed may have ended. Its number cannot have been given again as long as the kernel has
//!   other numbers to give; the window is the same as between the end of a process and the hang-up of its socket.
//! - A notification may find nothing to do: each task asks the state again what is due.
//!
//! | folder | what is in it |
//! |---|---|
//! | `admission/` | which guests are admitted, and which wait |
//! | `limits/` | changes of limits, bindings and knobs, and their preview |
//! | `charges/` | which container is charged for what |
//! | `pool/` | the shared pool and the guests that map it |
//! | `tick/` | decisions, and what guests report |

mod admission;
mod charges;
mod containers;
mod decisions;
mod effects;
mod error;
mod host;
mod kernel;
mod limits;
mod pool;
mod registry;
mod tick;
mod views;
mod watch;

pub use admission::admit::{Admission, Candidate, Refusal};
pub use admission::waiting::Ticket;
pub use charges::charge::PendingCharge;
pub use error::StateError;
pub use kernel::{HostKernel, Kernel};

use crate::events::Events;
use crate::journal::Journal;
use crate::pool::{Bindings, Library};
use crate::tree::Tree;
use accounting::System;
use policy::Knobs;
use protocol::run_dir::RunDir;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// The balancer's state behind its lock.
#[derive(Debug)]
pub struct Balancer {
    state: Mutex<State>,
    kernel: Arc<dyn Kernel>,
    /// Reads from the disk, and so is not behind the lock.
    library: Arc<Library>,
    /// Held by the request that scans the pool, so that others wait for its result.
    pool_scan: tokio::sync::Mutex<()>,
    /// A scan of a frame table may be due.
    scan_wanted: Notify,
    /// Granules came or went.
    granules_changed: Notify,
    /// A guest released what others wait for.
    freed: Notify,
    /// Where helpers find this balancer.
    run_dir: OnceLock<RunDir>,
}

#[derive(Debug)]
struct State {
    containers: containers::Containers,
    guests: registry::Registry,
    waiters: admission::waiting::Waiters,
    /// Limits on objects of the kernel that are exceeded.
    objects: admission::objects::Exceeded,
    pool: pool::SharedPool,
    decisions: decisions::Decisions,
    host: host::HostState,
    accounting: System,
    events: Events,
    /// What the current change wants done when the lock is free.
    effects: Vec<effects::Effect>,
}

impl Balancer {
    /// A balancer with the tree and the bindings that its journal held, the accounting system of the host, its
    /// images, the knobs of the policy and the kernel.
    #[must_use]
    pub fn new(
        journal: Journal,
        (tree, bindings): (Tree, Bindings),
        accounting: System,
        library: Library,
        knobs: Knobs,
        kernel: Arc<dyn Kernel>,
    ) -> Self {
        let mut events = Events::after(journal.events());
        let held = format!("The journal holds {} containers", tree.iter().count());
        events.push("balancer_started", None, None, &held);
        let now = kernel.now();
        let mut state = State {
            containers: containers::Containers::new(journal, tree, bindings),
            guests: registry::Registry::default(),
            waiters: admission::waiting::Waiters::default(),
            objects: admission::objects::Exceeded::default(),
            pool: pool::SharedPool::new(accounting, now),
            decisions: decisions::Decisions::new(knobs),
            host: host::HostState::new(kernel.host(), now),
            accounting,
            events,
            effects: vec![],
        };
        state.make_common();
        state.keep_events_reserved();
        Self {
            state: Mutex::new(state),
            kernel,
            library: Arc::new(library),
            pool_scan: tokio::sync::Mutex::default(),
            scan_wanted: Notify::new(),
            granules_changed: Notify::new(),
            freed: Notify::new(),
            run_dir: OnceLock::new(),
        }
    }

    /// One tick: observe, decide, effects.
    pub fn tick(&self) {
        let sources = self.view(|state, _| state.guests.sources());
        let samples: Vec<_> = sources.iter().map(|source| source.all(&*self.kernel)).collect();
        let host = self.kernel.host();
        self.change(|state, now| {
            samples.into_iter().for_each(|sample| state.guests.take(sample));
            state.take_host(host);
            state.forget_all_owners();
            state.watch_objects(now);
            state.check_tables(now);
            if state.host.take_sweep_due(now) {
                state.sweep_all();
            }
            state.adjust(now);
            state.ask_guests();
            state.effects.push(effects::Effect::ScanTables);
        });
    }

    /// Makes a change, and carries out what it wants done once the lock is free.
    fn change<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let (result, effects) = {
            let state = &mut *self.lock();
            let result = change(state, self.kernel.now());
            state.keep_events_reserved();
            (result, std::mem::take(&mut state.effects))
        };
        self.carry_out(effects);
        result
    }

    /// Reads the state.
    fn view<T>(&self, view: impl FnOnce(&State, Instant) -> T) -> T {
        let state = self.lock();
        view(&state, self.kernel.now())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug that the log shows; the state is changed in whole steps, so it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Reserves numbers of events before they are used up.
    fn keep_events_reserved(&mut self) {
        if let Some(last) = self.events.wants() {
            self.reserve_events(last);
        }
    }

    fn reserve_events(&mut self, last: u64) {
        self.events.reserve(last);
        // Events are not refused for it. If the balancer is killed before the next time, numbers are given twice.
        if let Err(error) = self.containers.commit_events(last) {
            tracing::warn!(error = %protocol::error_chain::chain(&error), "cannot write the number of the last event");
        }
    }
}
