//! At rest nothing moves, and a guest that does not release memory costs the others no more than it holds.

use super::super::guest::Kind;
use super::super::world::World;
use super::sums::Sums;
use super::{Checker, MIB};
use policy::{Bound, Pause, Plan, Reason};

impl Checker {
    pub(super) fn stillness(&mut self, world: &World, plan: &Plan, sums: &[Sums]) {
        let now = world.observation.now_ms;
        for (i, (view, target)) in world.observation.guests.iter().zip(&plan.targets).enumerate() {
            let (to, share) = (target.target_bytes, target.share_bytes);
            if let Some(last) = view.memory.target_bytes.filter(|last| *last != to) {
                let detail = format!("g{i}: {last} to {to}, {}", target.reason.rule());
                self.fail(now, "constant demand converges within 10 ticks and then stays still", detail);
            }
            let waits = matches!(target.reason, Reason::OnItsWay(Pause::WaitsForOthers, _));
            // What others hold above their targets, within the tolerance, is not free.
            let late = share.saturating_sub(to) > share / 16 + 8 * MIB;
            let lies = world.guests[i].kind == Kind::Lying;
            if waits && late && !lies && sums[0].excluded == 0 {
                self.fail(
                    now,
                    "released memory reaches the guest it was reclaimed for",
                    format!("g{i}: {to} of {share}"),
                );
            }
        }
    }

    /// Guests that do not release memory leave nothing unused: if a guest is bound by the host alone, the host is
    /// used up.
    pub(super) fn overhang(&mut self, world: &World, plan: &Plan, sums: &[Sums]) {
        let Some(budget) = plan.budget else { return };
        let (total, most) = (sums[0].bound, sums[0].most);
        let unused = budget.bytes.saturating_sub(total);
        let slack = budget.bytes / 100 + world.observation.guests.len() as u64 * MIB;
        if unused <= slack || total >= most.min(budget.bytes) || most <= total + slack {
            return;
        }
        if plan.targets.iter().any(|target| matches!(target.reason, Reason::Share(Bound::Host { .. }, _))) {
            let count = |rule: &str| plan.targets.iter().filter(|t| t.reason.rule() == rule).count();
            let detail = format!(
                "{} MiB of {} MiB are unused; {} wait for others, {} have what is left",
                unused / MIB,
                budget.bytes / MIB,
                count("free_first"),
                count("what_is_left"),
            );
            let invariant = "a guest that does not release memory costs the others no more than it holds";
            self.fail(world.observation.now_ms, invariant, detail);
        }
    }
}
