//! Two controllers of other projects, rewritten from what the projects publish about them, for comparison in the
//! simulator only. The rules are theirs; mistakes in the rewriting are ours.

use super::governor::{Governor, Target};
use policy::{GuestView, Observation};

const MIB: u64 = 1 << 20;
/// Both read the state of the host and act every 10 s.
const EVERY_MS: u64 = 10_000;
/// The least that a guest is configured with: an eighth of its RAM, or its floor.
const LEAST_PART: u64 = 8;

fn least_bytes(view: &GuestView) -> u64 {
    (view.ram_bytes / LEAST_PART).max(view.floor_bytes)
}

/// True if it is time to act; otherwise the last targets stay.
fn is_due(observation: &Observation, targets: &mut Vec<Target>) -> bool {
    for view in &observation.guests[targets.len()..] {
        targets.push(Target::of(view.ram_bytes));
    }
    observation.now_ms % EVERY_MS < observation.knobs.interval_ms
}

/// Proxmox VE's automatic ballooning: the host is kept at 80 % of its memory, in steps of at most 100 MiB per guest.
/// Guests with more free memory than a quarter of their least shrink first, then the others; the others grow first.
/// Within a list, shares divide what is above the least.
#[derive(Debug, Clone, Copy, Default)]
pub struct Proxmox;

impl Governor for Proxmox {
    fn tick(&mut self, observation: &mut Observation, targets: &mut Vec<Target>) {
        let due = is_due(observation, targets);
        let Some(host) = observation.host.filter(|_| due) else { return };
        let used = host.total_bytes.saturating_sub(host.available_bytes);
        let goal = (host.total_bytes / 10 * 8).cast_signed() - used.cast_signed();
        if goal.unsigned_abs() < 10 * MIB {
            return;
        }
        let (mut idle, mut busy) = (vec![], vec![]);
        for (i, view) in observation.guests.iter().enumerate() {
            // A guest without statistics takes no part.
            let Some(statistics) = view.fresh() else { continue };
            let free = statistics.available_bytes.saturating_sub(statistics.cache_bytes);
            if free > least_bytes(view) / 4 { idle.push(i) } else { busy.push(i) }
        }
        let (first, second) = if goal < 0 { (&idle, &busy) } else { (&busy, &idle) };
        let rest = Self::change(observation, targets, first, goal);
        Self::change(observation, targets, second, rest);
    }
}

impl Proxmox {
    /// Changes the guests of a list by `goal` bytes together, and returns what is left of that.
    fn change(observation: &Observation, targets: &mut [Target], list: &[usize], goal: i64) -> i64 {
        const STEP: i64 = 100 << 20;
        let weight =
            |i: &usize| i128::from(observation.containers[observation.guests[*i].container].limits.weight);
        let least = |i: &usize| least_bytes(&observation.guests[*i]).cast_signed();
        let total: i128 = list.iter().map(weight).sum();
        let above: i64 = list.iter().map(|i| targets[*i].bytes.cast_signed() - least(i)).sum();
        let mut rest = goal;
        for i in list {
            let old = targets[*i].bytes.cast_signed();
            let part = i128::from((above + goal).max(0)) * weight(i) / total.max(1);
            let desired = (i128::from(least(i)) + part)
                .clamp(i128::from(least(i)), i128::from(observation.guests[*i].ram_bytes));
            let desired = i64::try_from(desired).unwrap_or(old);
            let new = match goal > 0 {
                true => desired.clamp(old, old + STEP.min(rest.max(0))),
                false => desired.clamp(old + (-STEP).max(rest.min(0)), old),
            };
            rest -= new - old;
            targets[*i].bytes = new.unsigned_abs();
        }
        rest
    }
}

/// oVirt MoM's balloon rules: every guest shrinks while less than 20 % of the host are free, else every guest grows,
/// by at most 5 % a step. A guest keeps what it uses and a fifth of its memory. That part falls with the free memory
/// of the host, to a twentieth when less than 5 % are free.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mom;

impl Governor for Mom {
    fn tick(&mut self, observation: &mut Observation, targets: &mut Vec<Target>) {
        let due = is_due(observation, targets);
        let Some(host) = observation.host.filter(|_| due) else { return };
        let free_percent = host.available_bytes * 100 / host.total_bytes.max(1);
        for (view, target) in observation.guests.iter().zip(targets) {
            let Some(statistics) = view.fresh() else { continue };
            let now = target.bytes;
            // In these rules page cache is used memory.
            let used = statistics.used_bytes + statistics.cache_bytes;
            let keep_percent = match free_percent {
                0..=5 => 5,
                6..20 => 20 * free_percent / 20,
                _ => 20,
            };
            let least = least_bytes(view).max(used + now / 100 * keep_percent);
            let new = match free_percent < 20 {
                true => (now / 100 * 95).max(least).min(now),
                false => (now / 100 * 105).max(least).min(view.ram_bytes).max(now),
            };
            // A change of less than a quarter of a percent is ignored.
            if new.abs_diff(now) > now / 400 {
                target.bytes = new.min(view.ram_bytes);
            }
        }
    }
}
