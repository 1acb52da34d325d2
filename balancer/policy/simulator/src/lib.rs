//! `balancer simulate`: hosts and guests that are generated from a seed, under the policy of the balancer itself.
//!
//! ```text
//!   seed --> World: host, tree, guests  --observation--> Governor: policy::decide, or the rules of a rival
//!               ^                                             |
//!               +--------------- targets ---------------------+--> Checker: what must hold at every tick
//! ```
//!
//! Time is a number, so hours take seconds; the same seed gives the same run, to the byte. A guest is a set of
//! figures: what its programs use, its page cache, its balloon, and how honestly and fast it does what it is asked
//! ([`Kind`]).
//!
//! The rivals ([`Proxmox`], [`Mom`]) are about 100 lines of plain code without dependencies; `balancer simulate
//! --compare` needs them, so they stay in the daemon's program, where nothing else reaches them.

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
pub use governor::{Ballast, Governor, Target};
pub use guest::{Kind, Phase, SimGuest, Step};
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
