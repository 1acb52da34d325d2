//! What a guest needs, what it would make use of, and how far it may be moved at once.

use super::health;
use super::memory::GuestMemory;
use super::observation::{GuestView, OutOfMemory};
use super::rules::{Rule, Rules};
use super::stress::{Stress, decode};

/// Headroom at least, bytes.
const HEADROOM_BYTES_MIN: u64 = 64 << 20;
/// Headroom as a part of what is used: a quarter.
const HEADROOM_PART: u64 = 4;
/// What a guest uses falls only when it falls by this part.
const USED_FALL_PART: u64 = 16;
/// A guest that stalled counts as in need for so long, milliseconds.
const STRESS_MS: u64 = 10_000;
/// The same for one that had next to nothing available then: as soon as it has, its figures say what it uses. Milliseconds.
const SCARCE_MS: u64 = 3000;
/// Less than this part of its memory available is next to nothing.
const SCARCE_PART: u64 = 16;
/// As much is always next to nothing, bytes.
const SCARCE_BYTES: u64 = 32 << 20;
/// What a kernel keeps free whatever its programs use, bytes.
const SPARE_BYTES: u64 = 32 << 20;
/// A guest gives at most this part of its RAM in one turn; one that says nothing or stalls, half of that.
const STEP_PART: u64 = 4;
/// Smallest step, bytes, and as a part of its RAM.
const STEP_BYTES_MIN: u64 = 16 << 20;
const STEP_PART_MIN: u64 = 32;

/// What a guest that uses so much needs, bytes: that and some headroom.
#[must_use]
pub fn needed_bytes(used_bytes: u64) -> u64 {
    used_bytes.saturating_add(HEADROOM_BYTES_MIN.max(used_bytes / HEADROOM_PART))
}

/// What a decision knows of a guest. Bytes of guest RAM.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sense {
    /// What it needs to live, whatever the limits say.
    pub bare: u64,
    /// What it cannot be asked to go below now: raised after it ran out of memory, or when it does not give.
    pub floor: u64,
    /// What is kept for it: all that it has, if nobody knows what it uses any more.
    pub kept: u64,
    /// What it uses, without headroom.
    pub used: u64,
    /// What it uses and some headroom.
    pub need: u64,
    /// Of that, what it used lately and some headroom.
    pub working: u64,
    /// What it needs and its page cache.
    pub want: u64,
    /// What it has by the last target.
    pub keep: u64,
    /// What it can hold at most.
    pub most: u64,
    /// What it may be using at this moment.
    pub held: u64,
    /// By how much it may shrink in this turn, if only others need it.
    pub step: u64,
    /// It does not give what it was asked for.
    pub excluded: bool,
    /// Its statistics stopped.
    pub stale: bool,
    /// It still owes memory.
    pub owes: bool,
    /// It is to be asked again.
    pub ask_again: bool,
    /// How short of memory it is by its last statistics.
    pub stress: Stress,
}

impl GuestView {
    /// What it needs to live, at most its RAM.
    pub(super) fn hard_floor_bytes(&self) -> u64 {
        self.floor_bytes.min(self.ram_bytes)
    }

    /// Its floor now: raised after it ran out of memory.
    #[must_use]
    pub fn raised_floor_bytes(&self) -> u64 {
        let kept = match self.out_of_memory {
            OutOfMemory::No => 0,
            OutOfMemory::Holding { actual_bytes } => actual_bytes,
            // Never more than it holds: coming back must not become growing.
            OutOfMemory::Returning { actual_bytes } => self
                .fresh()
                .map_or(actual_bytes, |statistics| needed_bytes(statistics.used_bytes).min(actual_bytes)),
        };
        self.hard_floor_bytes().max(kept.min(self.ram_bytes))
    }

    /// Looks at it, and writes down what has to be remembered.
    pub(super) fn sense(&self, now_ms: u64, rules: Rules) -> (Sense, GuestMemory) {
        let (mut memory, ask_again) = health::assess(self, now_ms, rules);
        let (held, bare) = (self.held_bytes(), self.hard_floor_bytes());
        let mut floor = if rules.has(Rule::OutOfMemory) { self.raised_floor_bytes() } else { bare };
        let ceiling = self.ceiling.as_ref().map_or(u64::MAX, |ceiling| ceiling.bytes);
        let most = self.ram_bytes.min(ceiling).max(floor);
        let fresh = match rules.has(Rule::FreshStatistics) {
            true => self.fresh(),
            false => self.statistics.as_ref(),
        };
        let stale = fresh.is_none() && self.statistics.is_some();
        let mut stress = Stress::None;
        if let Some(statistics) = fresh {
            if statistics.sequence != memory.sequence {
                let scarce = statistics.available_bytes < SCARCE_BYTES.max(held / SCARCE_PART);
                if memory.sequence != 0 {
                    stress = decode(&memory.counters, &statistics.counters, scarce, rules);
                }
                (memory.counters, memory.sequence) = (statistics.counters, statistics.sequence);
            }
            if stress.is_short() {
                let scarce = statistics.available_bytes < SCARCE_BYTES.max(held / SCARCE_PART);
                memory.stressed_until_ms = now_ms.saturating_add(if scarce { SCARCE_MS } else { STRESS_MS });
            }
            let used = statistics.used_bytes;
            let falls = |known: u64| used < known - known / USED_FALL_PART || !rules.has(Rule::Hysteresis);
            if memory.used_bytes.is_none_or(|known| used > known || falls(known)) {
                memory.used_bytes = Some(used);
            }
        }
        let headroom = |used| if rules.has(Rule::Headroom) { needed_bytes(used) } else { used };
        let stressed = fresh.is_some() && now_ms < memory.stressed_until_ms;
        // Who does not say what it uses may use all of it; who is short of memory can use more than it says.
        let need = if stressed { most } else { memory.used_bytes.map_or(most, headroom) }.clamp(floor, most);
        // Of that, what is in use already: who is short of memory uses more than it has.
        let used = match memory.used_bytes {
            Some(_) if stressed => needed_bytes(held),
            known => known.unwrap_or(self.usage_bytes).saturating_add(SPARE_BYTES),
        };
        let cache = fresh.filter(|_| rules.has(Rule::CacheIsDemand)).map_or(0, |s| s.cache_bytes);
        let working = fresh.and_then(|s| s.working_set_bytes).filter(|_| !stressed);
        if memory.health.is_excluded() {
            floor = floor.max(held).min(self.ram_bytes);
        }
        let most = most.max(floor);
        let keep = memory.target_bytes.unwrap_or(floor).clamp(floor, most);
        let step = match fresh {
            _ if !rules.has(Rule::StepByAvailable) => u64::MAX,
            Some(_) if stressed => self.ram_bytes / STEP_PART / 2,
            Some(statistics) => statistics.available_bytes / 2,
            None => self.ram_bytes / STEP_PART / 2,
        };
        let sense = Sense {
            bare: if memory.health.is_excluded() { bare.max(held) } else { bare },
            floor,
            kept: if stale && memory.target_bytes.is_some() { keep } else { floor },
            need: need.max(floor),
            working: working.map_or(u64::MAX, needed_bytes),
            // Its page cache is headroom as well: what it gives up first when it grows.
            want: used.saturating_add(cache).max(need).clamp(floor, most),
            keep,
            most,
            held,
            used: used.clamp(floor, most),
            step: step.max(STEP_BYTES_MIN).max(self.ram_bytes / STEP_PART_MIN),
            excluded: memory.health.is_excluded(),
            stale,
            owes: memory.owes_since_ms.is_some(),
            ask_again,
            stress,
        };
        (sense, memory)
    }
}
