//! The record of each guest: what is known of it, from where, and how far it can be trusted.

mod budget;
mod cross_check;
mod disk_cache;
mod figures;
mod guest;
mod look;
mod process;
mod reading;

pub use budget::Budget;
pub use cross_check::{CrossCheck, Verdict};
pub use disk_cache::DiskCache;
pub use figures::{Figures, KernelSample};
pub use crate::pool::GuestSeq;
pub use guest::{Guest, Sampled, Watchable, age_ms, objects};
pub use look::{CarriedOut, Look, Looking};
pub use process::ProcessObjects;
pub use reading::{ImagePages, Reading, TableSample};
