//! Which container is charged for a frame: four systems behind one interface, fed by the same events.
//!
//! | system | rule | source |
//! |---|---|---|
//! | [`Zones`] | a zone of 2 MiB belongs to one container, used or not | CKRM's second controller (2006) |
//! | [static](static_ownership()) | the first container to touch a frame is charged for it | CKRM (2005) |
//! | [partial](partial()) | every container that uses a frame is charged a part of it | beancounters (OpenVZ wiki) |
//! | [`Rss`] | every container is charged for all that it maps now | the kernel's resident set, `proc_pid_statm(5)` |
//!
//! The comparison is the one of the Linux memory-management wiki's page on memory containers (2007).
//!
//! ```text
//!              touch                    share                    unshare, unshare            free
//!   absent  ---------> used by one ------------> used by several ---------------> unmapped ------>  absent
//!                            |                                                        ^
//!                            +------------------------ unshare -----------------------+
//! ```
//!
//! Every event covers a run of frames that are all in the state that it starts from: events are transitions, reported
//! by their source (the frame table, the pool). A run costs O(blocks of 2 MiB), or nothing per frame at all.
//!
//! The host's page cache of guests' disks is known in totals by file; `disk_cache.rs` applies the same rules to
//! these.
//!
//! Charges are fixed-point numbers of [`UNITS_PER_FRAME`] per frame, so that the parts of a frame sum to it exactly.

#![forbid(unsafe_code)]

mod charges;
mod disk_cache;
mod frame_map;
mod inherited;
mod ledger;
mod partial;
mod rss;
mod static_ownership;
mod system;
mod usage;
mod users;
mod zones;

pub use disk_cache::CacheClaim;
pub use inherited::GRACE_HALF_LIFE_MS;
pub use ledger::Ledger;
pub use partial::{Shares, partial};
pub use rss::Rss;
pub use static_ownership::static_ownership;
pub use system::System;
pub use usage::{Cost, GuestReading, Usage};
pub use zones::{ZONE_FRAMES, Zones};

use serde::{Deserialize, Serialize};

/// Fixed-point units of a whole frame: a unit is 1/256 byte. 2^64 units are 64 TiB of frames 2^10 times over.
pub const UNITS_PER_FRAME: u64 = 1 << 20;

/// A container by its owner id in the tree and in frame tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub u16);

/// The shared pool: it is charged for frames that are not charged to a container. No container of the tree has this
/// owner id.
pub const POOL: ContainerId = ContainerId(0);

/// A guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuestId(pub u16);

/// Frames in a row. Every region of guest RAM and every image of the pool has its own range in one space of frame
/// numbers, aligned to zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First frame.
    pub first: u64,
    /// Number of frames.
    pub count: u64,
}

/// A user of a frame, and the container that is to be charged for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct User {
    /// The guest.
    pub guest: GuestId,
    /// The container it was attached to, or had chosen to charge, when it began to use the frame.
    pub container: ContainerId,
}

/// What a frame is when it becomes resident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Memory of one guest: its RAM, or what the host holds for it alone, such as page cache of its disk.
    Private,
    /// A page of the shared pool.
    Pool,
}

/// The pool as the user of its own pages while no guest maps them: they are resident and charged to [`POOL`]. The
/// first guest that maps them replaces it.
pub const POOL_USER: User = User { guest: users::NO_GUEST, container: POOL };

/// An accounting system.
pub trait Accounting: std::fmt::Debug + Send {
    /// Frames become resident, and `by` maps them.
    fn touch(&mut self, run: Run, by: User, kind: Kind);

    /// One guest more maps resident frames.
    fn share(&mut self, run: Run, by: User);

    /// A guest no longer maps them. They stay resident.
    fn unshare(&mut self, run: Run, guest: GuestId);

    /// Frames leave the host. `mapped_by` is the only guest that maps them, if any: a shared page is unmapped from
    /// the other guests before it is freed, as the kernel does it.
    fn free(&mut self, run: Run, mapped_by: Option<GuestId>);

    /// A guest moves: what it begins to use from now on has the new container in its [`User`]. Its charges so far
    /// stay, unless the system knows guests only as a whole.
    fn move_guest(&mut self, guest: GuestId, to: ContainerId);

    /// The charges of a guest for these frames move to another container.
    fn move_charge(&mut self, run: Run, guest: GuestId, to: ContainerId);

    /// A container without guests is removed: its remaining charges move to the pool.
    fn remove(&mut self, container: ContainerId);

    /// Time passes. Milliseconds of any clock that does not go back.
    fn advance(&mut self, _now_ms: u64) {}

    /// What a container is charged, units.
    fn charged(&self, container: ContainerId) -> u64;

    /// The part of that which counts against its limit now, units.
    fn enforceable(&self, container: ContainerId) -> u64 {
        self.charged(container)
    }

    /// What is charged in total although no frame is resident for it, units.
    fn fragmentation(&self) -> u64 {
        0
    }

    /// Memory that the system itself takes, bytes.
    fn storage_bytes(&self) -> usize;
}

#[cfg(test)]
#[path = "accounting_test.rs"]
mod tests;
