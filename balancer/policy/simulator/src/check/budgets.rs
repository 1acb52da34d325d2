//! Targets are within the bounds of the guest, of each container and of the host, and above what is protected.

use super::super::world::World;
use super::sums::Sums;
use super::{Checker, MIB};
use policy::Plan;

impl Checker {
    pub(super) fn between_floor_and_ram(&mut self, world: &World, plan: &Plan) {
        for (i, (view, target)) in world.observation.guests.iter().zip(&plan.targets).enumerate() {
            let asked = target.target_bytes;
            if asked > view.ram_bytes || asked < view.floor_bytes.min(view.ram_bytes) {
                let now = world.observation.now_ms;
                self.fail(now, "a target lies between floor and RAM", format!("g{i}: {asked}"));
            }
        }
    }

    /// The sum of targets fits the budget, in every container and on the host.
    pub(super) fn budgets(&mut self, world: &World, plan: &Plan, sums: &[Sums]) {
        let now = world.observation.now_ms;
        for (at, view) in world.observation.containers.iter().enumerate() {
            let host = plan.budget.filter(|_| at == 0).map(|budget| budget.bytes);
            let Some(bytes) = view.limits.ceiling_bytes().into_iter().chain(host).min() else { continue };
            let sum = if at == 0 { sums[at].bound } else { sums[at].target };
            // A guest that ran out of memory, or whose statistics stopped, keeps what it holds.
            let reported =
                plan.shortfalls.iter().any(|short| short.container.is_inside(&view.path)) || sums[at].odd > 0;
            let known = sums[at].floor > bytes || reported;
            if sum > bytes && !known {
                let (over, path) = ((sum - bytes) / 1024, &view.path);
                self.fail(now, "the sum of targets fits the budget", format!("{path}: {over} KiB too much"));
            }
        }
    }

    /// Memory below a protection is not reclaimed.
    pub(super) fn protections(&mut self, world: &World, plan: &Plan, sums: &[Sums]) {
        let now = world.observation.now_ms;
        let containers = &world.observation.containers;
        // The protection of a container counts at most as much as that of its parent; the root protects everything.
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
                // A guest that does not release memory, or deflated because it ran out, uses up the protection of the
                // container it is in.
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
                self.fail(now, "protections hold", detail + &rules_in(world, plan, at));
            }
        }
    }
}

/// The rules that decided for the guests of a container.
fn rules_in(world: &World, plan: &Plan, at: usize) -> String {
    let inside = world.observation.guests.iter().zip(&plan.targets).filter(|(view, _)| view.container == at);
    inside.fold(String::new(), |text, (_, target)| {
        format!("{text}; {} of a share of {} MiB", target.reason.rule(), target.share_bytes / MIB)
    })
}
