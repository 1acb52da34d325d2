//! The host.

use accounting::System;
use host::meminfo::HostMemory;
use policy::{Budget, Shortfall};
use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The host, and sums over its guests.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HostObject {
    /// The kernel's figures.
    #[serde(flatten)]
    pub memory: HostMemory,
    /// Age of those figures, milliseconds.
    pub age_ms: u64,
    /// Number of guests.
    pub guests: usize,
    /// Number of containers, with the root.
    pub containers: usize,
    /// RAM of all guests, bytes.
    pub guests_ram_bytes: u64,
    /// Targets of all guests, bytes.
    pub guests_target_bytes: u64,
    /// The accounting system: it decides which container is charged for a frame.
    pub accounting: System,
    /// Bytes that are charged for all guests and the shared pool.
    pub guests_usage_bytes: u64,
    /// Frames of all guests that no state accounts for. Must stay 0.
    pub frames_untiled: u64,
    /// What guests may hold together, by the last plan.
    pub budget: Option<Budget>,
    /// Bytes that the host holds of images. `GET /v1/pool` has more.
    pub pool_resident_bytes: u64,
    /// Frames of images that were charged to no container or to two at any sample. Must stay 0.
    pub pool_uncharged_frames: u64,
    /// Limits that are smaller than the floors of the guests under them.
    pub shortfalls: Vec<Shortfall>,
    /// Guests that wait for memory (`vmm --wait`), first come, first served.
    pub waiting: Vec<WaitingObject>,
    /// Process of the balancer.
    pub balancer_pid: u32,
    /// Time since it started, milliseconds.
    pub balancer_age_ms: u64,
}

/// A guest that waits for memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitingObject {
    /// Its name.
    pub guest: String,
    /// The container that it is to be attached to.
    pub container: ContainerPath,
    /// Bytes that it needs to start.
    pub floor_bytes: u64,
    /// What is missing and which guests hold it, by the last try.
    pub reason: String,
    /// For how long it has waited, milliseconds.
    pub waited_ms: u64,
}

/// Versions of a balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Of the program.
    pub version: String,
    /// Of its protocol with guests.
    pub protocol_version: u32,
    /// Of the frame tables it reads.
    pub frame_table_version: u32,
    /// Of its journal.
    pub journal_version: u64,
}
