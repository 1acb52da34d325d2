//! Who may hold how much: [`decide`], a pure function from what is known to a target for each guest.
//!
//! Top-down, each container's budget is its share of its parent's, bounded by its own ceiling (the smaller of `high` and `max`); the
//! root's is bounded by what the host has for guests ([`Budget`]). A budget is divided in rounds; each round fills the members of a
//! container up to a cap, by weighted max-min fairness, before the next begins:
//!
//! ```text
//!   floor     what guests need to live (one that ran out of memory: what it holds; one that gives nothing: the same)
//!   vanished  what guests have whose statistics stopped: nobody knows what they need, and they are not asked
//!   min       protection that is always kept
//!   low       protection as far as it is in demand
//!   use       what programs in guests use
//!   need      that and some headroom
//!   want      their page cache
//!   keep      what they have: nobody gives what nobody needs; idle memory first, by the idle tax
//!   all       RAM: what is left over is of use to nobody else
//! ```
//!
//! That is a guest's share. [`motion`] leads there: growing at once, as far as memory is free; shrinking step by step, unless a limit
//! is exceeded. [`health`] keeps guests that do not do what they are asked from disturbing the others. A guest that charges other
//! containers than its own may hold less, see [`ceiling`]. What a container pays for beside its guests comes before what they share.
//! The host's page cache of disks has no part in that: it goes before a guest is asked, see [`keep`].
//!
//! No clock, no I/O, no randomness: the same observation gives the same plan. What is remembered between two decisions is in the
//! observation and in the plan, and nowhere else ([`GuestMemory`]).

#![forbid(unsafe_code)]

mod budget;
mod cache;
mod ceiling;
mod decide;
mod demand;
mod explain;
mod fill;
mod forest;
mod grant;
mod health;
mod knobs;
mod memory;
mod motion;
mod node;
mod observation;
mod plan;
mod reason;
mod round;
mod rules;
mod starve;
mod stress;
mod ways;

pub use budget::{Budget, STALL_MS};
pub use cache::{CachedView, Excess, keep};
pub use ceiling::{Ceiling, Charged, ceiling};
pub use decide::{decide, decide_by};
pub use demand::needed_bytes;
pub use explain::{Explanation, Input, explain};
pub use health::Health;
pub use knobs::{IDLE_TAX_PERCENT, IDLE_TAX_RANGE, INTERVAL_MS, INTERVAL_MS_RANGE, Knobs, OomPolicy};
pub use memory::{Counters, GuestMemory, HostMemory};
pub use motion::Pause;
pub use observation::{
    ContainerView, GuestStatistics, GuestView, HostView, Observation, OutOfMemory, STATISTICS_AGE_MS_MAX,
};
pub use plan::{CHANGE_BYTES_MIN, GuestTarget, Plan, Shortfall, is_worth_sending};
pub use reason::Reason;
pub use round::{Bound, Round};
pub use rules::{Rule, Rules};
pub use starve::PAUSE_MS_MAX;
pub use stress::Stress;
