//! What the host has for guests: what they hold, and what is available beside them, less a reserve.
//!
//! ```text
//!   MemTotal |  guests hold  |  available  |  others  |
//!            |<------- budget ------->|reserve|
//! ```
//!
//! Both figures are measured each turn, so that memory which others on the host take or give back is seen. The budget stands still
//! while it changes by less than a part of the host's memory. Tasks of the host that stall for memory double the reserve for a while.

use super::memory::HostMemory;
use super::observation::Observation;
use super::rules::{Rule, Rules};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stall of the host counts for so long, milliseconds.
pub const STALL_MS: u64 = 5000;
/// A change below this part of the host's memory is none.
const CHANGE_PART: u64 = 128;
/// Less than this part of the reserve available is next to nothing.
const STARVING_PART: u64 = 4;
/// So long with next to nothing is an emergency, milliseconds.
pub const STARVING_MS: u64 = 5000;

/// What guests may hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Budget {
    /// Guest RAM and what the host spends beside it, bytes.
    pub bytes: u64,
    /// What is kept for the host, bytes.
    pub reserve_bytes: u64,
    /// True while tasks of the host stall for memory.
    pub stalled: bool,
}

/// What guests may hold together, and what to remember.
pub(super) fn budget(observation: &Observation, rules: Rules) -> (Option<Budget>, HostMemory) {
    let Some(host) = observation.host else { return (None, HostMemory::default()) };
    let stalled = host.stalled_age_ms.is_some_and(|age| age <= STALL_MS);
    let reserve = match rules.has(Rule::Reserve) {
        true => observation.knobs.reserve_of(host.total_bytes),
        false => 0,
    };
    let reserve_bytes = if stalled { reserve.saturating_mul(2) } else { reserve }.min(host.total_bytes);
    let held = observation.guests.iter().fold(0u64, |sum, guest| {
        sum.saturating_add(guest.usage_bytes.min(guest.ram_bytes)).saturating_add(guest.overhead_bytes)
    });
    let measured =
        held.saturating_add(host.available_bytes).min(host.total_bytes).saturating_sub(reserve_bytes);
    let steady = |known: &u64| {
        known.abs_diff(measured) < host.total_bytes / CHANGE_PART && rules.has(Rule::Hysteresis)
    };
    let bytes = observation.memory.budget_bytes.filter(steady).unwrap_or(measured);
    let starving = host.available_bytes < reserve / STARVING_PART;
    let since = observation.memory.starving_since_ms.unwrap_or(observation.now_ms);
    let memory = HostMemory {
        budget_bytes: Some(bytes),
        starving_since_ms: starving.then_some(since),
        paused_at_ms: observation.memory.paused_at_ms,
    };
    (Some(Budget { bytes, reserve_bytes, stalled }), memory)
}
