//! `balancer simulate`: hosts and guests that are made up from a seed, under the policy of the balancer itself.
//!
//! ```text
//!   seed --> World: host, tree, guests  --observation--> Governor: policy::decide, or a rival's rules
//!               ^                                             |
//!               +--------------- targets ---------------------+--> Checker: what must hold at every tick
//! ```
//!
//! Time is a number, so that hours take seconds; the same seed gives the same run, to the byte. A guest is a sum of figures: what its
//! programs use, its page cache, its balloon, and how honestly and fast it does what it is asked ([`Kind`]).

#![forbid(unsafe_code)]

mod check;
mod generate;
mod governor;
mod guest;
mod replay;
mod rivals;
mod run;
mod score;
mod versus;
mod world;

pub use check::{Checker, Violation};
pub use generate::generate;
pub use governor::{Ballast, Governor};
pub use guest::{Kind, Phase, SimGuest};
pub use replay::{Replay, ReplayError, replay};
pub use rivals::{Mom, Proxmox};
pub use run::{Figures, Outcome, Settings, simulate};
pub use versus::versus;
pub use world::World;

#[cfg(test)]
#[path = "incidents_test.rs"]
mod incidents;
#[cfg(test)]
#[path = "simulator_test.rs"]
mod tests;
