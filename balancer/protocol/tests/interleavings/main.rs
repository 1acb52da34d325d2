//! The protocol of a block under every interleaving of a few threads, with the memory model's reorderings, by loom.
//!
//! The block's own source is compiled here a second time, with loom's atomics in place of the machine's, and with
//! blocks of two frames: what matters is how heads, entries and counts change under each other, not how many entries
//! there are.

#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "the modules are a part of the library, not all of it is used"
)]

mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}
#[path = "../../src/frames/block.rs"]
mod block;
#[path = "../../src/frames/change.rs"]
mod change;
#[path = "../../src/frames/entry.rs"]
mod entry;
#[path = "../../src/frames/head.rs"]
mod head;
#[path = "../../src/frames/region.rs"]
mod region;
#[path = "../../src/frames/state.rs"]
mod state;
#[path = "../../src/frames/transition.rs"]
mod transition;

mod model;
mod tests;
