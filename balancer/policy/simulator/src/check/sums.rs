//! Sums over what is inside each container.

use policy::{Health, Observation, OutOfMemory, Plan};

/// Bytes, overheads included.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pub target: u64,
    pub last: u64,
    /// What guests have or demand, whichever is more.
    pub wish: u64,
    /// What they demand, page cache included.
    pub demand: u64,
    /// What programs use.
    pub used: u64,
    /// What programs use and headroom.
    pub need: u64,
    /// What guests need, or hold if they do not release memory or their statistics stopped: that has a claim before
    /// page cache.
    pub plain: u64,
    /// The same of members, or what they are promised, whichever is more.
    pub claim: u64,
    /// The claim of the container itself, as its siblings see it: what it is sure of while they are not short.
    pub sure: u64,
    pub most: u64,
    /// Targets, or what is held by guests that do not release memory.
    pub bound: u64,
    pub floor: u64,
    /// Guests that are new, out of memory, or not well.
    pub odd: u32,
    pub guests: u32,
    pub excluded: u32,
    pub fell: bool,
}

impl Sums {
    /// Sums for all containers of an observation.
    pub fn add_up(sums: &mut Vec<Self>, observation: &Observation, plan: &Plan) {
        let containers = &observation.containers;
        sums.clear();
        sums.resize(containers.len(), Self::default());
        for (view, target) in observation.guests.iter().zip(&plan.targets) {
            let last = view.memory.target_bytes;
            let (asked, over) = (target.target_bytes, view.overhead_bytes);
            let excluded = target.memory.health.is_excluded();
            let vanished = target.memory.health == Health::Vanished;
            let silent = view.statistics.is_some() && view.fresh().is_none();
            let kept = if silent { last.unwrap_or(0).max(target.floor_bytes) } else { target.floor_bytes };
            let at = &mut sums[view.container];
            at.target += asked + over;
            at.last += last.unwrap_or(asked) + over;
            // A guest that does not release memory counts with what it holds.
            let wish =
                last.unwrap_or(0).max(target.demand_bytes).max(target.need_bytes).max(target.floor_bytes);
            at.wish += wish + over;
            at.demand += target.demand_bytes.max(target.need_bytes).max(kept) + over;
            at.used += target.used_bytes + over;
            at.need += target.need_bytes + over;
            at.plain += target.need_bytes.max(kept) + over;
            at.claim += target.need_bytes.max(kept) + over;
            at.most += target.ceiling_bytes + over;
            at.bound += if excluded { asked.max(target.held_bytes) } else { asked } + over;
            at.floor += target.floor_bytes + over;
            let odd = last.is_none() || vanished || view.out_of_memory != OutOfMemory::No;
            at.odd += u32::from(odd);
            at.excluded += u32::from(excluded);
            at.guests += 1;
            at.fell |= last.is_some_and(|last| asked < last);
        }
        for at in (1..containers.len()).rev() {
            let (limits, mut own) = (&containers[at].limits, sums[at]);
            // `low` protects what is in demand: page cache as well.
            let promised = limits.min_bytes.min(own.most).max(limits.low_bytes.min(own.demand));
            let ceiling = limits.ceiling_bytes().unwrap_or(u64::MAX).max(own.floor);
            own.sure = own.plain.max(promised).min(ceiling);
            sums[at].sure = own.sure;
            let sum = &mut sums[containers[at].parent];
            sum.target += own.target;
            sum.last += own.last;
            // Demand above a container's own limit is not pressure outside.
            let ceiling = limits.ceiling_bytes().unwrap_or(u64::MAX);
            // What it is promised is reserved even if it is idle.
            let promised = limits.min_bytes.min(own.most);
            // A limit cannot reclaim what a guest does not release.
            sum.wish += own.wish.max(promised).min(ceiling.max(own.last).max(own.bound));
            sum.demand += own.demand.min(ceiling.max(own.floor));
            sum.used += own.used.min(ceiling.max(own.floor));
            sum.need += own.need.min(ceiling.max(own.floor));
            sum.plain += own.plain.min(ceiling.max(own.floor));
            sum.claim += own.sure;
            sum.most += own.most.min(ceiling);
            sum.bound += own.bound;
            sum.floor += own.floor;
            sum.odd += own.odd;
            sum.excluded += own.excluded;
            sum.guests += own.guests;
            sum.fell |= own.fell;
        }
    }
}
