//! Guests.

use super::PoolGuestObject;
use policy::Health;
use protocol::engine::Engine;
use protocol::frames::Totals;
use protocol::message::{Balloon, Statistics};
use protocol::patch::null_or_value;
use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A guest.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GuestObject {
    /// Its name.
    pub name: String,
    /// The container it is attached to.
    pub container: ContainerPath,
    /// Owner id of that container.
    pub owner: u16,
    /// The container that is charged for frames that the guest touches from now on; `null` if it is the guest's own.
    pub charge_to: Option<ContainerPath>,
    /// Containers that the guest may charge by its own choice, with all inside them, in addition to those inside its
    /// own.
    pub may_charge: Vec<ContainerPath>,
    /// True until its `vmm` confirms the last change of the container that is charged.
    pub charge_pending: bool,
    /// Process of its `vmm`.
    pub pid: i32,
    /// The hypervisor that runs it.
    pub engine: Engine,
    /// The process that has its RAM, where that is not its `vmm`: QEMU.
    pub machine_pid: Option<i32>,
    /// True if another program started it: it can be detached, and then continues to run.
    pub attached: bool,
    /// Why its machine does not answer; `null` while it does. Its target waits until it answers.
    pub stuck: Option<String>,
    /// For how long it has not answered, milliseconds.
    pub stuck_age_ms: Option<u64>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Virtio devices.
    pub devices: u32,
    /// Open file descriptors of its `vmm`.
    pub fds: u64,
    /// Threads of its `vmm`.
    pub threads: u64,
    /// RAM, bytes.
    pub ram_bytes: u64,
    /// The least that it can run with, bytes.
    pub floor_bytes: u64,
    /// The most of its RAM that it was asked to hold, bytes.
    pub target_bytes: u64,
    /// The rule behind the target.
    pub target_reason: String,
    /// The most of its RAM that it can hold, bytes.
    pub actual_bytes: u64,
    /// Bytes that it causes by the host's accounting system, whichever container is charged. Where a frame table
    /// counts, the larger of the kernel's figure and the table's.
    pub usage_bytes: u64,
    /// Bytes by which `usage_bytes` may be too small: pages that its process has mapped of which it is not known yet,
    /// or cannot be, whether they are of an image, and pages of images that the pool does not count: of images that the
    /// pool does not know, and pages that were mapped since the last scan.
    pub usage_error_bytes: u64,
    /// Pages that it has mapped of images that the pool does not know (`vmm --root PATH`), bytes, by its frame table.
    /// Which other processes map them is not known: they are not charged except under `rss`, and count as
    /// `overhead_bytes` under the limits of its container.
    pub other_images_bytes: u64,
    /// Resident set of its `vmm` as the kernel counts it, bytes; `null` when the process is gone.
    pub resident_bytes: Option<u64>,
    /// Age of that reading, milliseconds.
    pub resident_age_ms: Option<u64>,
    /// Page tables that the kernel holds for its `vmm`, bytes, of the same reading; part of `usage_bytes`, except under
    /// `rss`.
    pub page_tables_bytes: Option<u64>,
    /// Bytes that it is charged for the host's page cache of its disks by the host's accounting system; part of
    /// `usage_bytes`.
    pub disk_cache_bytes: u64,
    /// Bytes by which `disk_cache_bytes` may be too small.
    pub disk_cache_error_bytes: u64,
    /// Page cache of its disks that the host holds, shared with other guests or not, bytes; `null` before its `vmm`
    /// reported it.
    pub disk_cache_held_bytes: Option<u64>,
    /// Age of that reading, milliseconds.
    pub disk_cache_age_ms: Option<u64>,
    /// Bytes that its `vmm` takes in addition to guest RAM.
    pub overhead_bytes: u64,
    /// Bytes that it uses by its own fresh statistics.
    pub used_bytes: Option<u64>,
    /// Bytes of its RAM that it used within 4 s, as the host kernel's data access monitor (DAMON) samples them; `null`
    /// where the monitor does not report, or is not used (`serve --working-sets`).
    pub working_set_bytes: Option<u64>,
    /// Age of that sample, milliseconds.
    pub working_set_age_ms: Option<u64>,
    /// How it follows its targets: `well`, `slow`, `stuck`, `lying`, `vanished` (its statistics stopped),
    /// `without_statistics`, `unserved` (no driver serves its balloon, 60 s after it registered) or `without_balloon`.
    pub health: Health,
    /// `running`, or `paused` while its vCPUs are stopped because the host is short of memory (`oom_policy`).
    pub state: RunState,
    /// Whether it deflated its balloon because it was out of memory.
    pub out_of_memory: OutOfMemoryState,
    /// False for a machine without a balloon: it is watched and charged, and cannot be made to release memory.
    pub has_balloon: bool,
    /// The balloon, as last reported.
    pub balloon: Balloon,
    /// Age of that report, milliseconds.
    pub balloon_age_ms: u64,
    /// The guest's statistics, as last reported.
    pub statistics: Option<Statistics>,
    /// Age of those statistics, milliseconds.
    pub statistics_age_ms: Option<u64>,
    /// What the kernel merges of its RAM; `null` for a guest without `--merge`, and before the first reading.
    pub merge: Option<MergeObject>,
    /// What it maps of the shared pool; `null` for a guest without images.
    pub pool: Option<PoolGuestObject>,
    /// Frames by state, now.
    pub frames: Totals,
    /// Why it is unknown which frames of its RAM the host holds: then all of them are `unknown`, and it is charged what
    /// the kernel counts for its processes. `null` where each frame can be scanned.
    pub ram_unseen: Option<String>,
    /// False once `frames` were found to differ from the kernel's figures by more than their error: event
    /// `table_disagrees`.
    pub trusted: bool,
    /// Time since it registered, milliseconds.
    pub registered_age_ms: u64,
}

/// Whether a guest's vCPUs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// They run.
    Running,
    /// They are stopped because the host is short of memory.
    Paused,
}

/// Whether a guest deflated its balloon because it was out of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutOfMemoryState {
    /// It did not.
    No,
    /// It did, and may keep that memory for a while.
    Holding,
    /// It did, and is asked for that memory again.
    Returning,
}

/// What the kernel merges of a guest's RAM with equal pages of other guests, or with each other (KSM), by
/// `/proc/PID/ksm_stat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MergeObject {
    /// Pages of the guest that are merged with an equal page.
    pub merging_pages: u64,
    /// Bytes that merging saves by the kernel's count, less its cost: negative if few pages are equal. The copy that
    /// stays is counted for each guest that has it.
    pub profit_bytes: i64,
    /// Kernel memory that the search for equal pages takes for this guest, bytes: 64 for each page that is scanned.
    pub cost_bytes: u64,
    /// Age of the reading, milliseconds.
    pub age_ms: u64,
}

/// Where the charges of a guest go that moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Charges {
    /// The new container is charged for every frame that the guest holds
    #[default]
    Move,
    /// Each frame that the guest holds stays charged to the same container until it is released
    Leave,
}

/// A change of a guest: it moves, or another container is charged. Absent fields change nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestPatch {
    /// The container that it is attached to from now on. It must exist. This ends `charge_to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerPath>,
    /// Where its charges go when it moves; `move` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charges: Option<Charges>,
    /// The container that is charged for frames that it touches from now on; `null` for its own container again.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_or_value")]
    pub charge_to: Option<Option<ContainerPath>>,
}
