//! The guests: what is known of each, and the socket at which they register.

mod budget;
mod cross_check;
mod disk_cache;
mod figures;
mod granules;
mod guest;
mod images;
mod look;
mod merge;
mod process;
mod server;
mod session;
mod working_set;

pub use budget::Budget;
pub use cross_check::{CrossCheck, Verdict};
pub use disk_cache::DiskCache;
pub use figures::{Figures, KernelSample, pool_totals};
pub use guest::{Guest, Sampled, objects};
pub use look::{CarriedOut, Look, Looking};
pub use merge::watch as watch_merge;
pub use process::ProcessObjects;
pub use server::{GuestServer, serve};
pub use working_set::{Watchable, watch as watch_working_sets};
