//! Who may hold how much: [`decide`], a pure function from what is known to a target for each guest.
//!
//! Top-down, each container's budget is its share of its parent's, bounded by its own ceiling (the smaller of `high`
//! and `max`). A budget is divided in rounds; each round fills the members of a container up to a cap, by weighted
//! max-min fairness, before the next begins:
//!
//! ```text
//!   floor   what guests need to live (a guest that ran out of memory: what it holds)
//!   min     protection that is always kept
//!   low     protection as far as it is in demand
//!   demand  what guests use, and some headroom
//!   all     RAM: what is left over is of use to nobody else
//! ```
//!
//! The host's page cache of disks has no part in that: it goes before a guest is asked, see [`keep`].
//! A guest that charges other containers than its own may hold less, see [`ceiling`].
//! Where no limit is on the way to the root every guest may hold its RAM: nobody is squeezed while memory is free.
//! No clock, no I/O, no randomness: the same observation gives the same plan.

mod cache;
mod ceiling;
mod decide;
mod demand;
mod fill;
mod observation;
mod plan;

pub use cache::{CachedView, Excess, keep};
pub use ceiling::{Ceiling, Charged, ceiling};
pub use decide::decide;
pub use observation::{ContainerView, GuestView, Observation, OutOfMemory};
pub use plan::{CHANGE_BYTES_MIN, GuestTarget, Plan, Shortfall, is_worth_sending};
