//! A guest is not asked to go below what it needs, unless the claims in a container above it exceed what that may
//! use.
//!
//! A claim is what a guest needs, what a container is promised (`min`, and `low` as far as it is in demand), or what
//! is held by guests that do not release memory; whichever is more, and at most the container's own limit. If the
//! claims do not exceed what a container may use, in any container on the way to the root, then every guest there can
//! have what it needs: a single guest below that is a violation.

use super::super::world::World;
use super::sums::Sums;
use super::{Checker, MIB};
use policy::{Plan, needed_bytes};

impl Checker {
    pub(super) fn needs(&mut self, world: &World, plan: &Plan, sums: &[Sums]) {
        let observation = &world.observation;
        let mut short = std::mem::take(&mut self.flags);
        short.clear();
        for (at, view) in observation.containers.iter().enumerate() {
            let host = plan.budget.filter(|_| at == 0).map(|budget| budget.bytes);
            let budget = view.limits.ceiling_bytes().into_iter().chain(host).min().unwrap_or(u64::MAX);
            let rounding = u64::from(sums[at].guests) * 4096;
            // A promise inside a container takes only from members of that container: outside it counts as a need.
            let budget = if at == 0 { budget } else { budget.min(sums[at].sure) };
            let own = sums[at].claim > budget || at == 0 && sums[0].claim + rounding > budget;
            short.push(own || at > 0 && short[view.parent]);
        }
        for (i, (view, target)) in observation.guests.iter().zip(&plan.targets).enumerate() {
            let (Some(last), Some(statistics)) = (view.memory.target_bytes, view.fresh()) else { continue };
            let need = needed_bytes(statistics.used_bytes).min(target.ceiling_bytes);
            // A guest that has less than it needs waits until others released memory; it is not asked to shrink.
            let lowered = target.target_bytes < last || target.share_bytes + 4096 < need;
            if target.target_bytes + 4096 < need && lowered && !short[view.container] {
                let [to, share, need] =
                    [target.target_bytes, target.share_bytes, need].map(|bytes| bytes / MIB);
                let (rule, claim) = (target.reason.rule(), sums[0].claim / MIB);
                let detail =
                    format!("g{i}: {to} of {need} MiB, its share {share}, by {rule}; all claim {claim}");
                self.fail(observation.now_ms, "no guest below what it needs", detail);
            }
        }
        self.flags = short;
    }
}
