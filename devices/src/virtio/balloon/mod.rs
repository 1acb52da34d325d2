//! The balloon device (virtio 1.3, section 5.5).
//!
//! The host asks for memory by writing a target into the configuration (`num_pages`) and raising a configuration
//! interrupt. The driver allocates pages, sends their frame numbers through the *inflate* queue, and writes how many it
//! holds into `actual`. With the used entry the host has taken the frames. To give back, the target falls; the driver
//! sends the frame numbers through the *deflate* queue, waits for the used entry (that is MUST_TELL_HOST) and only then
//! uses the pages.
//!
//! The *statistics* queue runs the other way round: one buffer of the driver always waits at the host. To ask for
//! statistics the host gives it back; the driver fills it and sends it again. So the very first buffer is old by the
//! time the host asks, and is never used as a sample.
//!
//! *Free page reporting* sends blocks of free guest memory as device-writable buffers. The driver keeps them allocated
//! until the used entry arrives, and afterwards finds any contents, usually zeros, in them.
//!
//! # Which queue is which
//!
//! By the specification queues are numbered 0 inflate, 1 deflate, 2 statistics, 3 free page hinting, 4 reporting. Linux
//! numbers the queues that it uses one after the other: its virtio-mmio `find_vqs` counts only those with a name, and
//! `virtio_balloon` names only those whose feature was negotiated (6.1 and 6.12 alike). QEMU and Firecracker
//! create only the queues whose features they offer, which comes to the same. A change of Linux to the
//! specification's numbers was proposed, so both must work. As hinting is not offered here, one table serves both:
//!
//! | queue | statistics negotiated | not negotiated |
//! |---|---|---|
//! | 0 | inflate | inflate |
//! | 1 | deflate | deflate |
//! | 2 | statistics | reporting (Linux) |
//! | 3 | reporting (Linux) | reporting |
//! | 4 | reporting (specification) | reporting (specification) |
//!
//! # What a hostile guest can do
//!
//! `actual` is what the driver claims and is used for display only; [`Balloon::held_frames`] counts what the host did
//! itself. Frame numbers outside RAM are refused one by one, repeated ones are counted. A chain of the wrong direction,
//! with part of a frame number, or longer than [`CHAIN_PFNS_MAX`] is answered and does nothing. Each event serves at
//! most [`BATCH_CHAINS`] chains.

mod backend;
mod config;
mod counters;
mod device;
mod events;
mod inflate;
mod oom;
mod pfn;
mod reporting;
mod stats;

pub use backend::{BalloonBackend, FrameRun, Outcome};
pub use counters::BalloonCounters;
pub use device::{Balloon, BalloonOptions};
pub use events::{BalloonEvent, EVENTS_MAX};
pub use pfn::merge;
pub use stats::{BalloonStats, StatsSample};

/// Bytes of a frame as a power of two, fixed by the specification whatever the guest's page size.
pub const FRAME_SHIFT: u32 = 12;

/// Feature bit numbers (section 5.5.3).
pub mod feature {
    /// The driver notifies the host before it uses pages from the balloon.
    pub const MUST_TELL_HOST: u32 = 0;
    /// There is a statistics queue.
    pub const STATS_VQ: u32 = 1;
    /// The driver takes pages out of the balloon by itself rather than kill a process.
    pub const DEFLATE_ON_OOM: u32 = 2;
    /// There is a queue for free page reporting.
    pub const PAGE_REPORTING: u32 = 5;
}

/// Queue of frames that the driver gives.
pub const INFLATE_QUEUE: usize = 0;
/// Queue of frames by which the driver deflates.
pub const DEFLATE_QUEUE: usize = 1;
/// Queue of statistics, if they were negotiated.
pub const STATS_QUEUE: usize = 2;
/// Queue of free page reporting as Linux numbers it when statistics were negotiated as well.
pub const REPORTING_QUEUE_LINUX: usize = 3;
/// Queue of free page reporting by the specification.
pub const REPORTING_QUEUE: usize = 4;

/// Frame numbers that one chain may carry, 64 MiB of memory. Linux sends 256.
pub const CHAIN_PFNS_MAX: usize = 16 * 1024;
/// Chains served in one event.
pub const BATCH_CHAINS: usize = 16;
