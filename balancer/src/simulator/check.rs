//! What must hold at every tick.
//!
//! The checks are written against the observation and the plan alone, not with the policy's own sums: each walks up from guests to
//! the root by the containers' parents.

use super::guest::Kind;
use super::world::World;
use crate::policy::{Health, OutOfMemory, Pause, Plan, Reason, needed_bytes};
use protocol::limits::WEIGHT_DEFAULT;
use serde::Serialize;

const MIB: u64 = 1 << 20;
/// So many ticks after the last change everything stands still.
pub const CONVERGENCE_TICKS: u64 = 10;
/// Violations that are kept.
const VIOLATIONS_MAX: usize = 16;

/// Something that must hold and did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// When, milliseconds of simulated time.
    pub at_ms: u64,
    /// What must hold.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

/// The checks, and what they found.
#[derive(Debug, Clone, Default)]
pub struct Checker {
    /// The first few violations.
    pub violations: Vec<Violation>,
    /// All violations.
    pub count: u64,
    /// Checks at rest that were made.
    pub at_rest: u64,
    sums: Vec<Sums>,
    pressed: Vec<bool>,
    short: Vec<bool>,
}

/// Sums of what is inside a container, bytes, overheads included.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    target: u64,
    last: u64,
    /// What guests have or want, whichever is more.
    wish: u64,
    need: u64,
    most: u64,
    /// Targets, or what is held by those who do not give.
    bound: u64,
    floor: u64,
    /// Guests that are new, out of memory, or not well.
    odd: u32,
    guests: u32,
    excluded: u32,
    fell: bool,
}

impl Checker {
    fn fail(&mut self, at_ms: u64, invariant: &'static str, detail: String) {
        self.count += 1;
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { at_ms, invariant, detail });
        }
    }

    /// Looks at what a plan makes of an observation.
    pub fn check(&mut self, world: &World, plan: &Plan) {
        let observation = &world.observation;
        let now = observation.now_ms;
        let containers = &observation.containers;
        let mut sums = std::mem::take(&mut self.sums);
        sums.clear();
        sums.resize(containers.len(), Sums::default());
        for (i, (view, target)) in observation.guests.iter().zip(&plan.targets).enumerate() {
            let last = view.memory.target_bytes;
            let (asked, over) = (target.target_bytes, view.overhead_bytes);
            let excluded = target.memory.health.is_excluded();
            let at = &mut sums[view.container];
            at.target += asked + over;
            at.last += last.unwrap_or(asked) + over;
            // Who does not give counts with what it holds.
            let wish =
                last.unwrap_or(0).max(target.want_bytes).max(target.need_bytes).max(target.floor_bytes);
            at.wish += wish + over;
            at.need += target.need_bytes + over;
            at.most += target.most_bytes + over;
            at.bound += if excluded { asked.max(target.held_bytes) } else { asked } + over;
            at.floor += target.floor_bytes + over;
            let odd = last.is_none()
                || target.memory.health == Health::Vanished
                || view.out_of_memory != OutOfMemory::No;
            at.odd += u32::from(odd);
            at.excluded += u32::from(excluded);
            at.guests += 1;
            at.fell |= last.is_some_and(|last| asked < last);
            if asked > view.ram_bytes || asked < view.floor_bytes.min(view.ram_bytes) {
                self.fail(now, "a target lies between floor and RAM", format!("g{i}: {asked}"));
            }
        }
        for at in (1..containers.len()).rev() {
            let (parent, own) = (containers[at].parent, sums[at]);
            let sum = &mut sums[parent];
            sum.target += own.target;
            sum.last += own.last;
            // What a container's own limit keeps it from wanting is no pressure outside.
            let ceiling = containers[at].limits.ceiling_bytes().unwrap_or(u64::MAX);
            // What it is promised is taken from others even if it is idle.
            let promised = containers[at].limits.min_bytes.min(own.most);
            // Nor does a limit take from who does not give.
            sum.wish += own.wish.max(promised).min(ceiling.max(own.last).max(own.bound));
            sum.need += own.need.min(ceiling.max(own.floor));
            sum.most += own.most.min(ceiling);
            sum.bound += own.bound;
            sum.floor += own.floor;
            sum.odd += own.odd;
            sum.excluded += own.excluded;
            sum.guests += own.guests;
            sum.fell |= own.fell;
        }
        self.budgets(world, plan, &sums);
        self.protections(world, plan, &sums);
        self.reclaim(world, plan, &sums);
        if now.saturating_sub(world.disturbed_at_ms) > CONVERGENCE_TICKS * observation.knobs.interval_ms {
            self.at_rest += 1;
            self.rest(world, plan, &sums);
        }
        self.sums = sums;
    }

    /// The sum of targets fits the budget, in every container and on the host.
    fn budgets(&mut self, world: &World, plan: &Plan, sums: &[Sums]) {
        let now = world.observation.now_ms;
        for (at, view) in world.observation.containers.iter().enumerate() {
            let host = plan.budget.filter(|_| at == 0).map(|budget| budget.bytes);
            let Some(bytes) = view.limits.ceiling_bytes().into_iter().chain(host).min() else { continue };
            let sum = if at == 0 { sums[at].bound } else { sums[at].target };
            // Who ran out of memory, or is not known enough of to shrink, keeps what it holds.
            let told =
                plan.shortfalls.iter().any(|short| short.container.is_inside(&view.path)) || sums[at].odd > 0;
            let known = sums[at].floor > bytes || told;
            if sum > bytes && !known {
                let (over, path) = ((sum - bytes) / 1024, &view.path);
                self.fail(now, "the sum of targets fits the budget", format!("{path}: {over} KiB too much"));
            }
        }
    }

    /// Nothing is taken below a protection.
    fn protections(&mut self, world: &World, plan: &Plan, sums: &[Sums]) {
        let now = world.observation.now_ms;
        let containers = &world.observation.containers;
        // The protection of a container counts as far as that of the one around it goes; the root's is everything.
        let mut effective = vec![u64::MAX; containers.len()];
        let mut promised = vec![0u64; containers.len()];
        for at in 1..containers.len() {
            promised[containers[at].parent] += containers[at].limits.min_bytes.min(sums[at].most);
        }
        for at in 1..containers.len() {
            let parent = containers[at].parent;
            let own = containers[at].limits.min_bytes.min(sums[at].most);
            effective[at] = match promised[parent] > effective[parent] {
                true => {
                    (u128::from(effective[parent]) * u128::from(own) / u128::from(promised[parent])) as u64
                }
                false => own,
            };
            let own = &sums[at];
            let rounding = u64::from(own.guests) * 4096;
            if own.fell && own.target < own.last && own.bound + rounding + 4096 < effective[at] {
                let short =
                    plan.shortfalls.iter().any(|short| containers[at].path.is_inside(&short.container));
                // Who does not give uses up the protection of the container it is in.
                // So does who took memory back in need.
                let above = &sums[containers[at].parent];
                let used_up = containers[at].parent != 0 && above.excluded + above.odd > 0;
                if short || used_up || own.odd > 0 {
                    continue;
                }
                let detail = format!(
                    "{}: {} to {} of {} MiB, its parent {} to {} of {}",
                    containers[at].path,
                    own.last / MIB,
                    own.target / MIB,
                    effective[at] / MIB,
                    sums[containers[at].parent].last / MIB,
                    sums[containers[at].parent].target / MIB,
                    containers[containers[at].parent].limits.min_bytes / MIB
                );
                let inside = world.observation.guests.iter().zip(&plan.targets);
                let inside = inside.filter(|(view, _)| view.container == at);
                let rules = inside.fold(String::new(), |text, (_, target)| {
                    format!("{text}; {} of a share of {} MiB", target.reason.rule(), target.share_bytes / MIB)
                });
                self.fail(now, "protections hold", detail + &rules);
            }
        }
    }

    /// Nobody is asked for memory that nobody needs, nor for what it needs itself.
    fn reclaim(&mut self, world: &World, plan: &Plan, sums: &[Sums]) {
        let observation = &world.observation;
        let now = observation.now_ms;
        let containers = &observation.containers;
        let (mut pressed, mut short) = (std::mem::take(&mut self.pressed), std::mem::take(&mut self.short));
        pressed.clear();
        short.clear();
        for (at, view) in containers.iter().enumerate() {
            let host = plan.budget.filter(|_| at == 0).map(|budget| budget.bytes);
            let bytes = view.limits.ceiling_bytes().into_iter().chain(host).min().unwrap_or(u64::MAX);
            let rounding = u64::from(sums[at].guests) * 4096;
            let own_press = sums[at].wish.saturating_add(rounding) > bytes || sums[at].floor > bytes;
            // Who does not give takes from what others need.
            let own_short = sums[at].need.saturating_add(rounding) > bytes || sums[at].excluded > 0;
            let above = |list: &[bool]| at > 0 && list[view.parent];
            pressed.push(own_press || above(&pressed));
            short.push(own_short || above(&short));
        }
        for (i, (view, target)) in observation.guests.iter().zip(&plan.targets).enumerate() {
            let Some(last) = view.memory.target_bytes else { continue };
            if target.target_bytes >= last {
                continue;
            }
            if !pressed[view.container] {
                let (mut at, mut way) = (view.container, String::new());
                loop {
                    let (path, sum) = (&containers[at].path, &sums[at]);
                    way += &format!("; {path}: {} wished, {} had", sum.wish / MIB, sum.last / MIB);
                    if at == 0 {
                        break;
                    }
                    at = containers[at].parent;
                }
                let budget = plan.budget.map_or(0, |budget| budget.bytes / MIB);
                let (to, share) = (target.target_bytes / MIB, target.share_bytes / MIB);
                let rule = target.reason.rule();
                let detail = format!(
                    "g{i}: {} to {to}, its share {share}, by {rule}{way}; the host has {budget}",
                    last / MIB
                );
                self.fail(now, "no reclaim without pressure", detail);
            }
            // Protection of others may be worth more than its need.
            let promises = containers.iter().any(|view| view.limits.min_bytes + view.limits.low_bytes > 0);
            let Some(statistics) = view.fresh() else { continue };
            let need = needed_bytes(statistics.used_bytes).min(target.most_bytes);
            if target.target_bytes < need && !short[view.container] && !promises {
                let detail = format!("g{i}: {} of {need}", target.target_bytes);
                self.fail(now, "no guest is asked for what it needs", detail);
            }
        }
        (self.pressed, self.short) = (pressed, short);
    }

    /// At rest nothing moves, weights are met, and who does not give costs the others no more than it holds.
    fn rest(&mut self, world: &World, plan: &Plan, sums: &[Sums]) {
        let observation = &world.observation;
        let now = observation.now_ms;
        for (i, (view, target)) in observation.guests.iter().zip(&plan.targets).enumerate() {
            if view.memory.target_bytes.is_some_and(|last| last != target.target_bytes) {
                let last = view.memory.target_bytes.unwrap_or(0);
                self.fail(
                    now,
                    "constant demand converges within 10 ticks and then stays still",
                    format!("g{i}: {last} to {}, {}", target.target_bytes, target.reason.rule()),
                );
            }
            let waits = matches!(target.reason, Reason::OnItsWay(Pause::WaitsForOthers, _));
            // What others hold beyond their targets without owing it is not free.
            let late =
                target.share_bytes.saturating_sub(target.target_bytes) > target.share_bytes / 16 + 8 * MIB;
            let lies = world.guests[i].kind == Kind::Lying;
            if waits && late && !lies && sums[0].excluded == 0 {
                let detail = format!("g{i}: {} of {}", target.target_bytes, target.share_bytes);
                self.fail(now, "what is freed reaches whom it was freed for", detail);
            }
        }
        // Weights: members of a container whose needs are not met, above what is protected.
        let containers = &observation.containers;
        let mut ratios: Vec<Option<(f64, f64, usize, usize)>> = vec![None; containers.len()];
        let mut add = |parent: usize, member: usize, ratio: f64| {
            let range = ratios[parent].get_or_insert((ratio, ratio, member, member));
            if ratio < range.0 {
                (range.0, range.2) = (ratio, member);
            }
            if ratio > range.1 {
                (range.1, range.3) = (ratio, member);
            }
        };
        let contended = |given: u64, floor: u64, need: u64, protected: u64| {
            given > floor.max(protected).saturating_add(2 * MIB) && given.saturating_add(2 * MIB) < need
        };
        for at in 1..containers.len() {
            let (view, sum) = (&containers[at], &sums[at]);
            let limits = &view.limits;
            let protected = limits.min_bytes.max(limits.low_bytes);
            let ceiling = limits.ceiling_bytes().unwrap_or(u64::MAX);
            let inner = protected == 0;
            let well = sum.odd == 0 && sum.excluded == 0;
            let promises_inside = containers
                .iter()
                .any(|inside| inside.parent == at && inside.limits.min_bytes + inside.limits.low_bytes > 0);
            if inner
                && well
                && !promises_inside
                && contended(sum.target, sum.floor, sum.need.min(ceiling), protected)
            {
                add(view.parent, at, sum.target as f64 / f64::from(limits.weight));
            }
        }
        for (view, target) in observation.guests.iter().zip(&plan.targets) {
            let given = target.target_bytes + view.overhead_bytes;
            let [floor, need] =
                [target.floor_bytes, target.need_bytes].map(|bytes| bytes + view.overhead_bytes);
            let odd = target.memory.health == Health::Vanished || view.out_of_memory != OutOfMemory::No;
            if !odd && !target.memory.health.is_excluded() && contended(given, floor, need, 0) {
                // A guest beside containers counts with the default weight.
                let lone = sums[view.container].guests == 1;
                if !lone {
                    add(view.container, view.container, given as f64 / f64::from(WEIGHT_DEFAULT));
                }
            }
        }
        for (at, range) in ratios.into_iter().enumerate() {
            let Some((low, high, a, b)) = range else { continue };
            if high > low * 1.01 {
                let path = &containers[at].path;
                let of = |i: usize| {
                    format!("{} {}/{}", containers[i].path, sums[i].target / MIB, sums[i].need / MIB)
                };
                let rules = observation.guests.iter().zip(&plan.targets).enumerate();
                let rules = rules.filter(|(_, (view, _))| [a, b].contains(&view.container)).fold(
                    String::new(),
                    |text, (i, (_, target))| {
                        let (rule, share) = (target.reason.rule(), target.share_bytes / MIB);
                        format!(
                            "{text}; g{i}: {rule}, its share is {share}, it holds {}",
                            target.held_bytes / MIB
                        )
                    },
                );
                let detail =
                    format!("{path}: {low:.0} of {} to {high:.0} of {} per weight{rules}", of(a), of(b));
                let mut over: Vec<(u64, usize)> = plan
                    .targets
                    .iter()
                    .enumerate()
                    .map(|(i, t)| (t.held_bytes.max(t.target_bytes).saturating_sub(t.share_bytes) / MIB, i))
                    .collect();
                over.sort_unstable_by(|a, b| b.cmp(a));
                let over = over.iter().take(3).fold(String::new(), |text, (mib, i)| {
                    let (t, kind) = (&plan.targets[*i], world.guests[*i].kind);
                    let rule = t.reason.rule();
                    format!(
                        "{text}; g{i}, {kind:?}, {:?}, {rule}, has {mib} MiB more than its share",
                        t.memory.health
                    )
                });
                self.fail(now, "weights are met within 1 % at rest", detail + &over);
            }
        }
        // Nothing is left unused beside who does not give: if the host is all that binds somebody, it is used up.
        let Some(budget) = plan.budget else { return };
        let total = sums[0].bound;
        let unused = budget.bytes.saturating_sub(total);
        let slack = budget.bytes / 100 + observation.guests.len() as u64 * MIB;
        if unused > slack && total < sums[0].most.min(budget.bytes) && sums[0].most > total + slack {
            let waits = plan
                .targets
                .iter()
                .any(|t| matches!(t.reason, Reason::Share(crate::policy::Bound::Host { .. }, _)));
            if waits {
                let count = |rule: &str| plan.targets.iter().filter(|t| t.reason.rule() == rule).count();
                let detail = format!(
                    "{} MiB of {} MiB are unused; {} wait for others, {} have what is left, shares are {} MiB",
                    unused / MIB,
                    budget.bytes / MIB,
                    count("free_first"),
                    count("what_is_left"),
                    plan.targets.iter().map(|t| t.share_bytes).sum::<u64>() / MIB
                );
                self.fail(now, "who does not give costs the others no more than it holds", detail);
            }
        }
    }
}
