//! Two controllers that others run, written anew from what their projects publish of them, for comparison in the simulator only.
//! What they decide is theirs; mistakes in telling it again are ours.

use super::governor::Governor;
use policy::{GuestView, Observation};

const MIB: u64 = 1 << 20;
/// Both look at the host and act every 10 s.
const EVERY_MS: u64 = 10_000;
/// The least that a guest is configured with: an eighth of its RAM, or its floor.
const LEAST_PART: u64 = 8;

fn least_bytes(view: &GuestView) -> u64 {
    (view.ram_bytes / LEAST_PART).max(view.floor_bytes)
}

/// True if it is time to act; else the last targets stay.
fn is_due(observation: &Observation, targets: &mut Vec<(u64, bool)>) -> bool {
    for view in &observation.guests[targets.len()..] {
        targets.push((view.ram_bytes, false));
    }
    observation.now_ms % EVERY_MS < observation.knobs.interval_ms
}

/// Proxmox VE's automatic ballooning: the host is kept at 80 % of its memory, by at most 100 MiB per guest and step. To shrink, guests
/// with more free memory than a quarter of their least go first, then all; to grow, the others go first. Within a list, shares divide
/// what is above the least.
#[derive(Debug, Clone, Copy, Default)]
pub struct Proxmox;

impl Governor for Proxmox {
    fn turn(&mut self, observation: &mut Observation, targets: &mut Vec<(u64, bool)>) {
        let due = is_due(observation, targets);
        let Some(host) = observation.host.filter(|_| due) else { return };
        let used = host.total_bytes.saturating_sub(host.available_bytes);
        let goal = (host.total_bytes / 10 * 8).cast_signed() - used.cast_signed();
        if goal.unsigned_abs() < 10 * MIB {
            return;
        }
        let (mut idle, mut busy) = (vec![], vec![]);
        for (i, view) in observation.guests.iter().enumerate() {
            // One without statistics takes no part.
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
    /// Changes guests of a list by so many bytes together, and returns what is left of that.
    fn change(observation: &Observation, targets: &mut [(u64, bool)], list: &[usize], goal: i64) -> i64 {
        const STEP: i64 = 100 << 20;
        let weight =
            |i: &usize| i128::from(observation.containers[observation.guests[*i].container].limits.weight);
        let least = |i: &usize| least_bytes(&observation.guests[*i]).cast_signed();
        let total: i128 = list.iter().map(weight).sum();
        let above: i64 = list.iter().map(|i| targets[*i].0.cast_signed() - least(i)).sum();
        let mut rest = goal;
        for i in list {
            let old = targets[*i].0.cast_signed();
            let part = i128::from((above + goal).max(0)) * weight(i) / total.max(1);
            let desired = (i128::from(least(i)) + part)
                .clamp(i128::from(least(i)), i128::from(observation.guests[*i].ram_bytes));
            let desired = i64::try_from(desired).unwrap_or(old);
            let new = match goal > 0 {
                true => desired.clamp(old, old + STEP.min(rest.max(0))),
                false => desired.clamp(old + (-STEP).max(rest.min(0)), old),
            };
            rest -= new - old;
            targets[*i].0 = new.unsigned_abs();
        }
        rest
    }
}

/// oVirt MoM's balloon rules: with less than 20 % of the host free every guest shrinks, else every guest grows, by at most 5 % a step.
/// A guest keeps what it uses and a fifth of its memory, less of it the shorter the host is, a twentieth when less than 5 % are free.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mom;

impl Governor for Mom {
    fn turn(&mut self, observation: &mut Observation, targets: &mut Vec<(u64, bool)>) {
        let due = is_due(observation, targets);
        let Some(host) = observation.host.filter(|_| due) else { return };
        let free_percent = host.available_bytes * 100 / host.total_bytes.max(1);
        for (view, target) in observation.guests.iter().zip(targets) {
            let Some(statistics) = view.fresh() else { continue };
            let now = target.0;
            // By its rules page cache is used memory.
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
            // A change of less than a quarter of a percent is none.
            if new.abs_diff(now) > now / 400 {
                target.0 = new.min(view.ram_bytes);
            }
        }
    }
}
