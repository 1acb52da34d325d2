//! Guests that do not do what they are asked, and how the others are kept unharmed.
//!
//! ```text
//!        it owes, but releases some           it owes, released nothing for 10 s
//!   Well <------------------------> Slow ---------------------------------------> Stuck: its balloon is too small
//!     ^                              ^                                            Lying: its balloon is large enough,
//!     | it released all              | it releases some again                       |    but the host counts more
//!     +------------------------------+----------------------------------------------+
//!                                                      asked again after 10 s, 20 s, ... 10 min
//! ```
//!
//! A guest owes memory while it holds more than its last target. A guest that is stuck or lies counts with what it
//! holds from then on (`Rule::Exclude`), so that memory that is not there is not promised to others; its target
//! stays. A guest that inflated its balloon and is found to use these frames lies; ten seconds are not needed to find
//! that (`Rule::Refaults`). A guest that sent statistics and stopped, as when its balloon driver is unloaded, has
//! *vanished*: it is not shrunk. A guest that never sent any has its share by weight.
//!
//! A guest without a balloon, or without a driver for it within 60 s, is marked while it does not owe. The mark alone
//! has no effect: a guest that cannot release memory and holds no more than its target does not disturb others.

use crate::observation::guest::GuestView;
use crate::observation::memory::GuestMemory;
use crate::rules::{Rule, Rules};
use serde::{Deserialize, Serialize};

/// A guest that released nothing for this long is stuck; a guest that released too little for this long is slow.
/// Milliseconds.
pub const STUCK_AFTER_MS: u64 = 10_000;
/// A guest that did not serve its balloon this long after it registered is not booting any more. Milliseconds.
pub const UNSERVED_AFTER_MS: u64 = 60_000;
/// First and longest time until it is asked again, milliseconds.
const RETRY_MS: std::ops::RangeInclusive<u64> = 10_000..=600_000;
/// To release less than this counts as nothing. Bytes.
const RELEASE_BYTES_MIN: u64 = 1 << 20;

/// Whether a guest does what it is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It does what it is asked.
    #[default]
    Well,
    /// It releases what it is asked for, but slowly.
    Slow,
    /// It does not release what it is asked for.
    Stuck,
    /// It reports memory as released that it is found to hold.
    Lying,
    /// Its statistics stopped.
    Vanished,
    /// It never sent statistics.
    WithoutStatistics,
    /// No driver in it serves its balloon.
    Unserved,
    /// Its machine has no balloon.
    WithoutBalloon,
}

impl Health {
    /// True for a guest that counts with what it holds.
    #[must_use]
    pub fn is_excluded(self) -> bool {
        matches!(self, Self::Stuck | Self::Lying)
    }

    /// Its name in JSON and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Slow => "slow",
            Self::Stuck => "stuck",
            Self::Lying => "lying",
            Self::Vanished => "vanished",
            Self::WithoutStatistics => "without_statistics",
            Self::Unserved => "unserved",
            Self::WithoutBalloon => "without_balloon",
        }
    }

    /// A sentence about a guest with this health.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Well => "It does what it is asked",
            Self::Slow => "It releases what it is asked for, but slowly",
            Self::Stuck => "It does not release what it is asked for",
            Self::Lying => "It reports memory as released that it is found to hold",
            Self::Vanished => "Its statistics stopped",
            Self::WithoutStatistics => "It never sent statistics",
            Self::Unserved => "It does not serve its balloon",
            Self::WithoutBalloon => "It has no balloon",
        }
    }
}

/// What is to be remembered of a guest, its health included. True if it is to be asked again.
pub(super) fn assess(view: &GuestView, now_ms: u64, rules: Rules) -> (GuestMemory, bool) {
    let mut memory = view.memory;
    let held = view.held_bytes();
    // A guest that restarted counts from zero.
    let refaulted = view.refaulted_bytes.saturating_sub(memory.refaulted_bytes);
    memory.refaulted_bytes = view.refaulted_bytes;
    let unserved_since = (!view.driver_ready).then(|| memory.unserved_since_ms.unwrap_or(now_ms));
    memory.unserved_since_ms = unserved_since;
    if !view.owes() {
        memory.owes_since_ms = None;
        memory.tries = 0;
        memory.health = match &view.statistics {
            _ if !view.has_balloon => Health::WithoutBalloon,
            None if unserved_since.is_some_and(|since| now_ms.saturating_sub(since) >= UNSERVED_AFTER_MS) => {
                Health::Unserved
            }
            // It is booting.
            None if !view.driver_ready => Health::Well,
            None => Health::WithoutStatistics,
            Some(_) if view.fresh().is_none() => Health::Vanished,
            Some(_) => Health::Well,
        };
        return (memory, false);
    }
    if memory.health == Health::Unserved && view.driver_ready {
        memory.health = Health::Well;
    }
    let since = *memory.owes_since_ms.get_or_insert_with(|| {
        (memory.least_held_bytes, memory.gave_at_ms) = (held, now_ms);
        now_ms
    });
    if held.saturating_add(RELEASE_BYTES_MIN) <= memory.least_held_bytes {
        (memory.least_held_bytes, memory.gave_at_ms) = (held, now_ms);
        if memory.health.is_excluded() {
            memory.health = Health::Slow;
        }
    }
    if memory.paused_since_ms.is_some() {
        // While it is paused it cannot release memory: that does not count as silence.
        memory.gave_at_ms = now_ms;
        return (memory, false);
    }
    let target = memory.target_bytes.unwrap_or(view.ram_bytes);
    let reports_less = view.actual_bytes <= target.saturating_add(view.tolerance_bytes());
    let refaults = refaulted > view.tolerance_bytes() && rules.has(Rule::Refaults);
    let silent_ms = now_ms.saturating_sub(memory.gave_at_ms);
    if memory.health.is_excluded() {
        if now_ms < memory.retry_at_ms || !rules.has(Rule::Retry) {
            return (memory, false);
        }
    } else if (silent_ms >= STUCK_AFTER_MS || reports_less && refaults) && rules.has(Rule::Exclude) {
        memory.health = if reports_less { Health::Lying } else { Health::Stuck };
    } else {
        if now_ms.saturating_sub(since) >= STUCK_AFTER_MS {
            memory.health = Health::Slow;
        }
        return (memory, false);
    }
    let wait = RETRY_MS.start().saturating_mul(1 << memory.tries.min(10)).min(*RETRY_MS.end());
    memory.retry_at_ms = now_ms.saturating_add(wait);
    memory.tries = memory.tries.saturating_add(1);
    (memory, true)
}
