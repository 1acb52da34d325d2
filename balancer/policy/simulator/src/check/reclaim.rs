//! A guest is not asked for memory that is not needed elsewhere.

use super::super::world::World;
use super::sums::Sums;
use super::{Checker, MIB};
use policy::Plan;

impl Checker {
    pub(super) fn reclaim(&mut self, world: &World, plan: &Plan, sums: &[Sums]) {
        let observation = &world.observation;
        let mut pressed = std::mem::take(&mut self.flags);
        pressed.clear();
        for (at, view) in observation.containers.iter().enumerate() {
            let host = plan.budget.filter(|_| at == 0).map(|budget| budget.bytes);
            let budget = view.limits.ceiling_bytes().into_iter().chain(host).min().unwrap_or(u64::MAX);
            let rounding = u64::from(sums[at].guests) * 4096;
            let own = sums[at].wish.saturating_add(rounding) > budget || sums[at].floor > budget;
            pressed.push(own || at > 0 && pressed[view.parent]);
        }
        for (i, (view, target)) in observation.guests.iter().zip(&plan.targets).enumerate() {
            let falls = view.memory.target_bytes.filter(|last| target.target_bytes < *last);
            let Some(last) = falls.filter(|_| !pressed[view.container]) else { continue };
            let [last, to, share] = [last, target.target_bytes, target.share_bytes].map(|bytes| bytes / MIB);
            let (rule, path) = (target.reason.rule(), path_to_root(world, sums, view.container));
            let detail = format!("g{i}: {last} to {to}, its share {share}, by {rule}{path}");
            self.fail(observation.now_ms, "no reclaim without pressure", detail);
        }
        self.flags = pressed;
    }
}

/// What is demanded and held in each container on the way to the root.
fn path_to_root(world: &World, sums: &[Sums], mut at: usize) -> String {
    let containers = &world.observation.containers;
    let mut text = String::new();
    loop {
        let sum = &sums[at];
        text += &format!("; {}: {} wished, {} had", containers[at].path, sum.wish / MIB, sum.last / MIB);
        if at == 0 {
            return text;
        }
        at = containers[at].parent;
    }
}
