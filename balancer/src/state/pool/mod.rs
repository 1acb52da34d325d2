//! The shared pool and the guests that map it: its pages, its limits and what clients see of it.

pub(in crate::state) mod granules;
pub(in crate::state) mod limits;
pub(in crate::state) mod merge;
pub(in crate::state) mod pages;
pub(in crate::state) mod views;

use crate::events::Events;
use crate::guests::EventBucket;
use crate::objects::PoolShortfall;
use crate::pool::Pool;
use crate::tree::Tree;
use accounting::{ContainerId, POOL, System};
use protocol::bytes::Human;
use protocol::path::ContainerPath;
use std::time::{Duration, Instant};

/// The pool's own container.
pub const COMMON: &str = "/common";
/// Time between two events about a full pool.
const FULL_EVENT_EVERY: Duration = Duration::from_secs(10);

/// The pool, and the events about it.
#[derive(Debug)]
pub(in crate::state) struct SharedPool {
    /// The images, and the guests that map them.
    pub images: Pool,
    pub shortfalls: Vec<PoolShortfall>,
    /// Events that images may cause.
    event_bucket: EventBucket,
    /// When the last event said that a guest waits for room in the pool.
    full_at: Option<Instant>,
    /// Why guests that are merged may be merged with processes that are not guests, by the last event.
    pub merge_exposed: Option<String>,
}

impl SharedPool {
    pub(in crate::state) fn new(accounting: System, now: Instant) -> Self {
        Self {
            images: Pool::new(accounting, now),
            shortfalls: vec![],
            event_bucket: EventBucket::new(now),
            full_at: None,
            merge_exposed: None,
        }
    }

    /// Adds an event that images caused, unless they caused too many.
    pub(in crate::state) fn event(&mut self, events: &mut Events, kind: &str, detail: &str, now: Instant) {
        if self.event_bucket.take(now).is_some() {
            events.push(kind, None, None, detail);
        }
    }

    /// Adds now and then the event that a guest waits and nothing can be evicted for it.
    pub(in crate::state) fn full(
        &mut self,
        events: &mut Events,
        guest: &str,
        budget_bytes: Option<u64>,
        now: Instant,
    ) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < FULL_EVENT_EVERY;
        if self.full_at.is_some_and(is_recent) {
            return;
        }
        self.full_at = Some(now);
        let budget = Human(budget_bytes.unwrap_or(0));
        let detail = format!(
            "Guest {guest} waits for a page of an image, and nothing can be evicted for it in {budget}"
        );
        self.event(events, "pool_full", &detail, now);
    }

    /// Bytes of the pool that count against the limit of a container. What is charged to the pool's own container
    /// takes room from no guest: it is evicted instead.
    pub(in crate::state) fn bytes_for_policy(&self, path: &ContainerPath, owner: u16) -> u64 {
        if path.as_str() == COMMON { 0 } else { self.images.enforceable_bytes(ContainerId(owner)) }
    }
}

/// The path of the pool's own container.
pub(in crate::state) fn common() -> ContainerPath {
    COMMON.parse().expect("a path with one plain name")
}

/// The names that a container has in the pool's accounts, if it pays for images as a whole.
pub(in crate::state) fn payers_of(
    tree: &Tree,
    path: &ContainerPath,
) -> impl Iterator<Item = ContainerId> + use<> {
    let own = tree.get(path).map(|node| ContainerId(node.owner));
    let pool = (path.as_str() == COMMON).then_some(POOL);
    own.into_iter().chain(pool)
}
