//! The frame table: who owns each guest-physical frame, in which state it is, and since when.
//!
//! One memfd per guest, written by the guest's `vmm`, read by the balancer without a round trip:
//!
//! ```text
//!  0        header: magic, version, regions | error, ages | operations begun, ended | flows[from][to]    2 pages
//!  8192     blocks: head (entry, sequence, mode), previous entry, 6 counters of 16 bits     32 bytes per 2 MiB block
//!  ...      entries: state 0..3, found 3, revision 4..8, age 8..16, owner 16..32             4 bytes per frame
//! ```
//!
//! **Size.** An entry is 4 bytes; with its block's share a frame takes 4.06 bytes of address space. While the frames of
//! a block are alike its head speaks for all, and entries that never spoke take no memory: a guest that was not touched
//! costs 16 KiB per GiB.
//!
//! **Cost.** A run over whole blocks that are alike is one compare-and-swap per block. Where frames differ a run costs
//! a compare-and-swap per frame, and a run over the whole of such a block makes it alike again ([`block`] has the
//! picture). `cargo bench -p protocol` measures both.
//!
//! **Regions.** A table covers RAM and the images that the guest has mapped. In an image frames are untouched or
//! shared; pages of the pool are mapped and unmapped there alone, and nothing else happens there ([`RegionKind`]).
//!
//! **Tiling.** Every transition is one addition to the `flows` of its region, which takes from one state what it gives
//! to another: the totals of each region tile at every moment ([`ledger`]). Blocks and entries are counted
//! independently of that and must come to the same figures whenever no process writes.
//!
//! **Concurrency.** Any number of threads write, without a lock; the reader is another process that never waits:
//! it repeats a reading that changed under it a bounded number of times, then answers with [`Totals::torn`]. A killed
//! or hostile writer can make the figures wrong, and that is all it can do. `tests/interleavings` checks the protocol
//! of a block with every interleaving of a few threads.
//!
//! **Unknown.** Where a process that does not tell gives memory back (engine qemu), a frame is private or not, by the
//! kernel's word, and nothing more is known: [`FrameTable::set_residency_only`] makes the totals say `unknown` for what
//! would be untouched.
//!
//! **Truth.** What the kernel does by itself is found by scans; [`Totals`] says how much may be missing.

mod age;
mod atomic;
mod block;
mod change;
mod entry;
mod head;
#[allow(unsafe_code)]
mod layout;
mod ledger;
mod reader;
mod region;
mod snapshot;
mod state;
mod totals;
mod transition;
mod writer;

pub use age::AGE_TICK_MS;
pub use layout::{LayoutError, VERSION};
pub use reader::{Frame, FrameReader, FrameRun, READ_ATTEMPTS};
pub use region::{Region, RegionKind};
pub use snapshot::Snapshot;
pub use state::{STATES, State};
pub use totals::{ErrorSource, Totals};
pub use transition::{TRANSITIONS, Transition};
pub use writer::{FrameTable, RunOutcome};

#[cfg(test)]
#[path = "frames_test.rs"]
mod tests;

#[cfg(test)]
#[path = "hostile_test.rs"]
mod hostile_tests;
