//! The policy: how much memory each guest may hold. [`decide`] is a pure function from an observation to a target for
//! each guest.
//!
//! | folder | what it answers |
//! |---|---|
//! | `observation` | What does the policy know of the host, its containers and its guests? What does it remember? |
//! | `guest` | What does one guest need? Does it do what it is asked? What may it hold by the containers it charges? |
//! | `host` | What does the host have for guests? What happens when the host runs out of memory? |
//! | `share` | How is a budget divided? What is the share of a guest? |
//! | `motion` | How does a guest get from its last target to its share? |
//! | `plan` | What was decided, why, and what would have to change? |
//!
//! Memory is divided top-down. The budget of a container is its share of its parent's budget, bounded by its own
//! ceiling (the smaller of `high` and `max`); the budget of the root is bounded by what the host has for guests
//! ([`Budget`]). A budget is divided in rounds. Each round fills the members of a container up to a cap, by weighted
//! max-min fairness, before the next round begins:
//!
//! ```text
//!   floor     what guests need to live; a guest that ran out of memory or does not release any: what it holds
//!   vanished  what guests hold whose statistics stopped: their need is unknown, so they are not asked for memory
//!   min       protection that always holds
//!   low       protection as far as the memory is in demand
//!   use       what the programs in guests use
//!   need      that and some headroom
//!   demand    the page cache of guests
//!   keep      what guests have: memory that is not needed elsewhere stays; idle memory goes first, by the idle tax
//!   all       the rest of their RAM: what is left over is of no use elsewhere
//! ```
//!
//! The result is the share of a guest. `motion` leads to it: a guest grows at once, as far as memory is free; it
//! shrinks step by step, unless a limit is exceeded. [`Health`] keeps guests that do not do what they are asked from
//! disturbing the others. A guest that charges other containers than its own may hold less, see [`ceiling`]. What a
//! container is charged in addition to its guests comes before what its guests share. The host's page cache of disks
//! has no part in this: it is dropped before a guest is asked for memory, see [`keep`].
//!
//! No clock, no I/O, no randomness: the same observation gives the same plan. What is remembered between two
//! decisions is in the observation and in the plan, and nowhere else ([`GuestMemory`]).

#![forbid(unsafe_code)]

mod decide;
mod guest;
mod host;
mod knobs;
mod motion;
mod observation;
mod plan;
mod rules;
mod share;

pub use decide::{decide, decide_by};
pub use guest::ceiling::{Ceiling, Charged, ceiling};
pub use guest::health::Health;
pub use guest::stress::Stress;
pub use host::budget::{Budget, STALL_MS};
pub use host::cache::{CachedView, Excess, keep};
pub use host::starve::PAUSE_MS_MAX;
pub use knobs::{IDLE_TAX_PERCENT, IDLE_TAX_RANGE, INTERVAL_MS, INTERVAL_MS_RANGE, Knobs, OomPolicy};
pub use motion::Pause;
pub use observation::guest::{GuestStatistics, GuestView, OutOfMemory, STATISTICS_AGE_MS_MAX, needed_bytes};
pub use observation::memory::{Counters, GuestMemory, HostMemory};
pub use observation::{ContainerView, HostView, Observation};
pub use plan::explain::{Explanation, Input, explain};
pub use plan::reason::Reason;
pub use plan::{CHANGE_BYTES_MIN, GuestTarget, Plan, Shortfall, is_worth_sending};
pub use rules::{Rule, Rules};
pub use share::round::{Bound, Round};
