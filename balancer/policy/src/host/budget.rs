//! What the host has for guests: what they hold and what is available in addition, less a reserve.
//!
//! ```text
//!   MemTotal |  guests hold  |  available  |  others  |
//!            |<------- budget ------->|reserve|
//! ```
//!
//! Both figures are measured at each tick, so the budget follows what other processes on the host use. It does not
//! change while the difference is less than a part of the host's memory. If tasks of the host stall for memory, the
//! reserve is doubled for a while.

use crate::observation::Observation;
use crate::observation::memory::HostMemory;
use crate::rules::{Rule, Rules};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A stall of the host counts for this long, milliseconds.
pub const STALL_MS: u64 = 5000;
/// A change below this part of the host's memory is ignored.
const CHANGE_PART: u64 = 128;
/// If less than this part of the reserve is available, the host has next to nothing.
const STARVING_PART: u64 = 4;
/// If the host has next to nothing for this long, that is an emergency. Milliseconds.
pub const STARVING_MS: u64 = 5000;

/// What guests may hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Budget {
    /// Guest RAM and its overhead, bytes.
    pub bytes: u64,
    /// What is kept for the host, bytes.
    pub reserve_bytes: u64,
    /// True while tasks of the host stall for memory.
    pub stalled: bool,
}

/// What guests may hold together, and what to remember.
pub(crate) fn budget(observation: &Observation, rules: Rules) -> (Option<Budget>, HostMemory) {
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
