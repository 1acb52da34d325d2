//! The frame table: who owns each guest-physical frame, and in which state it is.
//!
//! One memfd per guest, written by the guest's `vmm`, read by the balancer without a round trip:
//!
//! ```text
//!  0        header: magic, version, regions, owner, sequence, totals by state        1 page
//!  4096     blocks: 8 counters of 16 bits, one per state, for each 2 MiB block      16 bytes per block
//!  ...      entries: state 0..4, flags 4..8, age 8..16, owner 16..32                 4 bytes per frame
//! ```
//!
//! **Tiling.** In a stable table the counters of each block sum to 512 and the totals to the frames of all regions.
//! One writer at a time changes the table, a run at a time; `sequence` is odd meanwhile, so that a reader in another
//! process knows a torn reading and repeats it (a sequence lock). A reader never waits for a writer: after
//! [`READ_ATTEMPTS`] it answers with [`Totals::torn`] set, so that a killed or hostile writer cannot hold it up.

mod layout;
mod reader;
mod state;
mod writer;

pub use layout::{LayoutError, Region, VERSION};
pub use reader::{FrameReader, READ_ATTEMPTS, Totals};
pub use state::{STATES, State};
pub use writer::{FrameTable, RunOutcome};

#[cfg(test)]
#[path = "frames_test.rs"]
mod tests;
