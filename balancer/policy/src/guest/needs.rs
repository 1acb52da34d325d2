//! What a guest needs, what it can make use of, and how far it may be moved in one tick.

use super::health;
use super::stress::{Stress, decode};
use crate::observation::guest::{GuestStatistics, GuestView, needed_bytes};
use crate::observation::memory::GuestMemory;
use crate::rules::{Rule, Rules};

/// What a guest uses falls only when it falls by this part.
const USED_FALL_PART: u64 = 16;
/// A guest that stalled counts as in need for this long, milliseconds.
const STRESS_MS: u64 = 10_000;
/// The same for a guest that had next to nothing available when it stalled: as soon as it has some again, its figures
/// tell what it uses. Milliseconds.
const SCARCE_MS: u64 = 3000;
/// Less than this part of its memory available is next to nothing.
const SCARCE_PART: u64 = 16;
/// This much or less is always next to nothing, bytes.
const SCARCE_BYTES: u64 = 32 << 20;
/// What a kernel keeps free whatever its programs use, bytes.
const SPARE_BYTES: u64 = 32 << 20;
/// A guest releases at most this part of its RAM in one tick; a guest without statistics, or one that stalls, half of
/// that.
const STEP_PART: u64 = 4;
/// Smallest step, bytes, and as a part of its RAM.
const STEP_BYTES_MIN: u64 = 16 << 20;
const STEP_PART_MIN: u64 = 32;

/// What a decision knows of the needs of a guest. All figures are bytes of guest RAM, without its overhead.
///
/// | field | relates to | meaning |
/// |---|---|---|
/// | `hard_floor` | `floor_bytes` at registration | what it needs to live, whatever the limits are |
/// | `floor` | `min` cannot go below it | `hard_floor`, raised while it cannot be asked to release memory |
/// | `protected` | like a `min` of its own | `floor`, or its last target if its statistics stopped |
/// | `used` | `usage` of its programs | what it uses, without headroom |
/// | `need` | | `used` and headroom |
/// | `working_need` | | the part of `need` that it used lately, and headroom |
/// | `demand` | `low` protects up to this | `need` and its page cache |
/// | `keep_target` | | its last target: what it may keep while there is enough |
/// | `ceiling` | `max` of containers it charges | what it can hold at most, at most its RAM |
/// | `held` | `usage` of its RAM | what it may be using at this moment |
///
/// `hard_floor <= floor <= protected`, and `floor <= used, need, demand, keep_target <= ceiling`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Needs {
    pub hard_floor: u64,
    pub floor: u64,
    pub protected: u64,
    pub used: u64,
    pub need: u64,
    pub working_need: u64,
    pub demand: u64,
    pub keep_target: u64,
    pub ceiling: u64,
    pub held: u64,
    /// By how much it may shrink in this tick, if only other guests need the memory.
    pub step: u64,
    /// It does not release what it was asked for.
    pub excluded: bool,
    /// Its statistics stopped.
    pub stale: bool,
    /// It holds more than it was asked to.
    pub owes: bool,
    /// It is to be asked again.
    pub ask_again: bool,
    /// How short of memory it is by its last statistics.
    pub stress: Stress,
}

impl Needs {
    /// What a guest needs now, and what is to be remembered of it.
    pub fn of(view: &GuestView, now_ms: u64, rules: Rules) -> (Self, GuestMemory) {
        let (mut memory, ask_again) = health::assess(view, now_ms, rules);
        let excluded = memory.health.is_excluded();
        let (held, hard_floor) = (view.held_bytes(), view.hard_floor_bytes());
        let mut floor = if rules.has(Rule::OutOfMemory) { view.raised_floor_bytes() } else { hard_floor };
        let ceiling = view.ceiling.as_ref().map_or(u64::MAX, |ceiling| ceiling.bytes);
        let ceiling = view.ram_bytes.min(ceiling).max(floor);
        let fresh = match rules.has(Rule::FreshStatistics) {
            true => view.fresh(),
            false => view.statistics.as_ref(),
        };
        let stale = fresh.is_none() && view.statistics.is_some();
        let stress = fresh.map_or(Stress::None, |fresh| remember(&mut memory, fresh, held, now_ms, rules));
        let headroom = |used| if rules.has(Rule::Headroom) { needed_bytes(used) } else { used };
        let stressed = fresh.is_some() && now_ms < memory.stressed_until_ms;
        // A guest whose use is unknown may use all of it; a guest that is short of memory can use more than it
        // reports.
        let need = if stressed { ceiling } else { memory.used_bytes.map_or(ceiling, headroom) };
        let need = need.clamp(floor, ceiling);
        // The part of it that is in use already: a guest that is short of memory uses more than it has.
        let used = match memory.used_bytes {
            Some(_) if stressed => needed_bytes(held),
            known => known.unwrap_or(view.usage_bytes).saturating_add(SPARE_BYTES),
        };
        let cache = fresh.filter(|_| rules.has(Rule::CacheIsDemand)).map_or(0, |fresh| fresh.cache_bytes);
        let working = fresh.and_then(|fresh| fresh.working_set_bytes).filter(|_| !stressed);
        if excluded {
            floor = floor.max(held).min(view.ram_bytes);
        }
        let ceiling = ceiling.max(floor);
        let keep_target = memory.target_bytes.unwrap_or(floor).clamp(floor, ceiling);
        let step = match fresh {
            _ if !rules.has(Rule::StepByAvailable) => u64::MAX,
            Some(_) if stressed => view.ram_bytes / STEP_PART / 2,
            Some(statistics) => statistics.available_bytes / 2,
            None => view.ram_bytes / STEP_PART / 2,
        };
        let needs = Self {
            hard_floor: if excluded { hard_floor.max(held) } else { hard_floor },
            floor,
            protected: if stale && memory.target_bytes.is_some() { keep_target } else { floor },
            need: need.max(floor),
            working_need: working.map_or(u64::MAX, needed_bytes),
            // Its page cache is headroom as well: it is the first that the guest gives up when it grows.
            demand: used.saturating_add(cache).max(need).clamp(floor, ceiling),
            keep_target,
            ceiling,
            held,
            used: used.clamp(floor, ceiling),
            step: step.max(STEP_BYTES_MIN).max(view.ram_bytes / STEP_PART_MIN),
            excluded,
            stale,
            owes: memory.owes_since_ms.is_some(),
            ask_again,
            stress,
        };
        (needs, memory)
    }
}

/// Remembers what fresh statistics report. Returns how short of memory the guest is, if the sample is new.
fn remember(
    memory: &mut GuestMemory,
    fresh: &GuestStatistics,
    held: u64,
    now_ms: u64,
    rules: Rules,
) -> Stress {
    let mut stress = Stress::None;
    let scarce = fresh.available_bytes < SCARCE_BYTES.max(held / SCARCE_PART);
    if fresh.sequence != memory.sequence {
        if memory.sequence != 0 {
            stress = decode(&memory.counters, &fresh.counters, scarce, rules);
        }
        (memory.counters, memory.sequence) = (fresh.counters, fresh.sequence);
    }
    if stress.is_short() {
        memory.stressed_until_ms = now_ms.saturating_add(if scarce { SCARCE_MS } else { STRESS_MS });
    }
    let used = fresh.used_bytes;
    let falls = |known: u64| used < known - known / USED_FALL_PART || !rules.has(Rule::Hysteresis);
    if memory.used_bytes.is_none_or(|known| used > known || falls(known)) {
        memory.used_bytes = Some(used);
    }
    stress
}
