//! Guests that do not do what they are asked, and how the others are kept out of it.
//!
//! ```text
//!             it owes, and gives            it owes, and gave nothing for 10 s
//!   Well <-----------------------> Slow --------------------------------------> Stuck: by its balloon it still holds it
//!     ^                             ^                                           Lying: by its balloon it gave it, by the host's count not
//!     |  it gave all                |  it gives again                             |
//!     +-----------------------------+---------------------------------------------+ asked again after 10 s, 20 s, ... 10 min
//! ```
//!
//! Who says that it gave and is found to use frames that it gave lies, and needs no ten seconds to be found (`Rule::Refaults`).
//!
//! To owe is to hold more than the last target. Who is stuck or lies counts with what it holds from then on (`Rule::Exclude`), so
//! that no memory is promised to others that is not there; what it was asked for stays asked for. *Vanished* is who sent statistics
//! and stopped, as one does whose balloon driver is unloaded: it is not shrunk. Who never sent any has its share by weight.
//!
//! Who has no balloon, or no driver for it within 60 s, is told of as such while it does not owe: nothing follows from that by itself,
//! since a guest that cannot give and holds what it was given disturbs nobody.

use super::observation::{GuestView, OutOfMemory};
use super::rules::{Rule, Rules};
use serde::{Deserialize, Serialize};

/// So long without giving anything is stuck; so long with giving too little is slow. Milliseconds.
pub const STUCK_AFTER_MS: u64 = 10_000;
/// A guest that did not serve its balloon so long after it registered does not boot any more. Milliseconds.
pub const UNSERVED_AFTER_MS: u64 = 60_000;
/// First and longest time until it is asked again, milliseconds.
const RETRY_MS: std::ops::RangeInclusive<u64> = 10_000..=600_000;
/// Less than this is not giving. Bytes.
const GIVE_BYTES_MIN: u64 = 1 << 20;
/// What a guest may hold beyond its target without owing it, at least, and as a part of its RAM.
const TOLERANCE_BYTES_MIN: u64 = 4 << 20;
const TOLERANCE_PART: u64 = 256;

/// How a guest is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It does what it is asked.
    #[default]
    Well,
    /// It gives what it is asked for, and takes long.
    Slow,
    /// It does not give what it is asked for.
    Stuck,
    /// It says that it gave what it is found to hold.
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
    /// True for one that counts with what it holds.
    #[must_use]
    pub fn is_excluded(self) -> bool {
        matches!(self, Self::Stuck | Self::Lying)
    }

    /// As JSON and the command line name it.
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

    /// The same as a sentence about a guest.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Well => "It does what it is asked",
            Self::Slow => "It gives what it is asked for, and takes long",
            Self::Stuck => "It does not give what it is asked for",
            Self::Lying => "It says that it gave what it is found to hold",
            Self::Vanished => "Its statistics stopped",
            Self::WithoutStatistics => "It never sent statistics",
            Self::Unserved => "It does not serve its balloon",
            Self::WithoutBalloon => "It has no balloon",
        }
    }
}

impl GuestView {
    /// What it may hold beyond a target without owing it, bytes.
    #[must_use]
    pub fn tolerance_bytes(&self) -> u64 {
        TOLERANCE_BYTES_MIN.max(self.ram_bytes / TOLERANCE_PART)
    }

    /// Why it cannot be made to give memory, whatever it is asked; `None` for one that can.
    #[must_use]
    pub fn cannot_give(&self) -> Option<&'static str> {
        match (self.has_balloon, self.driver_ready) {
            (false, _) => Some("It has no balloon: it cannot be made to give memory"),
            (true, false) => {
                Some("No driver serves its balloon: it cannot be made to give memory until one does")
            }
            (true, true) => None,
        }
    }

    /// True if it holds more than it was asked to.
    pub(super) fn owes(&self) -> bool {
        let beyond = |target: u64| self.held_bytes() > target.saturating_add(self.tolerance_bytes());
        self.out_of_memory == OutOfMemory::No && self.memory.target_bytes.is_some_and(beyond)
    }
}

/// How a guest is now; writes down what has to be remembered. True if it is to be asked again.
pub(super) fn assess(view: &GuestView, now_ms: u64, rules: Rules) -> (super::GuestMemory, bool) {
    let mut memory = view.memory;
    let held = view.held_bytes();
    // A guest that was started again counts from zero.
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
            // It boots.
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
    if held.saturating_add(GIVE_BYTES_MIN) <= memory.least_held_bytes {
        (memory.least_held_bytes, memory.gave_at_ms) = (held, now_ms);
        if memory.health.is_excluded() {
            memory.health = Health::Slow;
        }
    }
    if memory.paused_since_ms.is_some() {
        // It cannot give: that is no silence of its own.
        memory.gave_at_ms = now_ms;
        return (memory, false);
    }
    let target = memory.target_bytes.unwrap_or(view.ram_bytes);
    let says_less = view.actual_bytes <= target.saturating_add(view.tolerance_bytes());
    let refaults = refaulted > view.tolerance_bytes() && rules.has(Rule::Refaults);
    let silent_ms = now_ms.saturating_sub(memory.gave_at_ms);
    if memory.health.is_excluded() {
        if now_ms < memory.retry_at_ms || !rules.has(Rule::Retry) {
            return (memory, false);
        }
    } else if (silent_ms >= STUCK_AFTER_MS || says_less && refaults) && rules.has(Rule::Exclude) {
        memory.health = if says_less { Health::Lying } else { Health::Stuck };
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
