//! What the policy remembers from one decision to the next. It comes with the observation and leaves with the plan;
//! there is nothing else.

use crate::guest::health::Health;
use serde::{Deserialize, Serialize};

/// What is remembered of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostMemory {
    /// What guests might hold together at the last tick, bytes.
    pub budget_bytes: Option<u64>,
    /// Since when the host has next to nothing left, by the clock of observations.
    pub starving_since_ms: Option<u64>,
    /// When a guest was last paused or resumed.
    pub paused_at_ms: Option<u64>,
}

/// What is remembered of a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestMemory {
    /// The last target, bytes.
    pub target_bytes: Option<u64>,
    /// What it used lately, bytes; `None` before its first statistics.
    pub used_bytes: Option<u64>,
    /// Whether it does what it is asked.
    pub health: Health,
    /// Since when no driver serves its balloon; `None` while one does.
    pub unserved_since_ms: Option<u64>,
    /// Since when it owes memory; `None` when it does not.
    pub owes_since_ms: Option<u64>,
    /// The least that it held since then, bytes.
    pub least_held_bytes: u64,
    /// When it last released memory.
    pub gave_at_ms: u64,
    /// How often it was asked again.
    pub tries: u32,
    /// When it is asked again.
    pub retry_at_ms: u64,
    /// Counters of its statistics when they were last read.
    pub counters: Counters,
    /// The sample of these counters.
    pub sequence: u64,
    /// It stalled for memory: until this time it counts as in need.
    pub stressed_until_ms: u64,
    /// What it was known to use of the memory in its balloon, bytes.
    pub refaulted_bytes: u64,
    /// Since when it is paused because the host starves; `None` when it may run.
    pub paused_since_ms: Option<u64>,
}

/// Counters since the guest's boot (virtio 1.3, section 5.5.6.3, and the tags that Linux 6.12 added). 0 if a guest
/// does not send one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Processes that were killed because memory ran out.
    pub oom_kills: u64,
    /// Allocations that had to reclaim pages themselves.
    pub alloc_stalls: u64,
    /// Pages that these allocations scanned.
    pub direct_scans: u64,
    /// Pages that these allocations reclaimed.
    pub direct_reclaims: u64,
    /// Pages that had to be read from disk.
    pub major_faults: u64,
    /// Bytes that came back from swap.
    pub swap_in_bytes: u64,
}
