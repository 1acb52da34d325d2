//! The record of each guest: what is known of it, its source, and how far it can be trusted. It knows nothing of the
//! state.

mod cross_check;
mod disk_cache;
mod event_bucket;
mod figures;
mod guest;
mod process;
mod reading;
mod scan;

pub use crate::pool::GuestSeq;
pub use cross_check::{CrossCheck, Verdict};
pub use disk_cache::DiskCache;
pub use event_bucket::EventBucket;
pub use figures::{Figures, KernelSample};
pub use guest::{Guest, Sampled, Watchable, age_ms, objects};
pub use process::ProcessObjects;
pub use reading::{ImagePages, Reading, TableSample};
pub use scan::{ChargeDone, ChargeId, DueScan, TableScan};
