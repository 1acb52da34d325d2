//! Who may grow already: what is free, by what guests hold and not by what they were asked for, goes to whom it was freed for.

use super::demand::Sense;
use super::fill::{Share, fill};
use super::forest::Forest;
use super::motion::{Move, Pause};
use super::observation::{Observation, OutOfMemory};
use super::plan::CHANGE_BYTES_MIN;
use super::rules::{Rule, Rules};
use protocol::bytes::FRAME_BYTES;
use protocol::limits::WEIGHT_DEFAULT;

/// Without `Rule::GrowFully`: the part of its RAM by which a guest grows.
const PARTIAL_GROWTH_PART: u64 = 32;

/// Sums over what is in each container.
struct Sums {
    /// What cannot be given to anybody: what guests hold or are asked to hold, whichever is more.
    committed: Vec<u64>,
    /// Of that, what no guest took back by itself: more than its limit a container takes from others by that alone.
    asked: Vec<u64>,
    /// That, the same with what guests need, and with their shares, before the limit of the container itself.
    inner: Vec<[u64; 3]>,
    /// The same with what they need.
    needed: Vec<u64>,
    /// The same with their shares.
    wanted: Vec<u64>,
}

/// Gives what is free to those whose share is more than they have, those in need first.
pub(super) fn grant(
    observation: &Observation,
    forest: &Forest,
    senses: &[Sense],
    share: &impl Fn(usize) -> u64,
    moves: &mut [Move],
    rules: Rules,
) {
    let grows = |i: usize, moves: &[Move]| moves[i].pause.is_none() && share(i) > moves[i].target;
    if !(0..moves.len()).any(|i| grows(i, moves)) {
        return;
    }
    let nodes = forest.nodes.len();
    let mut sums = Sums {
        committed: vec![0; nodes],
        asked: vec![0; nodes],
        inner: vec![[0; 3]; nodes],
        needed: vec![0; nodes],
        wanted: vec![0; nodes],
    };
    // What each guest binds now, binds once it has what it needs, and once it has its share.
    let bound = |i: usize, moves: &[Move]| -> [u64; 3] {
        let (target, overhead) = (moves[i].target, observation.guests[i].overhead_bytes);
        let held = senses[i].held;
        let beyond = held > target.saturating_add(observation.guests[i].tolerance_bytes());
        let committed = if beyond && rules.has(Rule::FreeFirst) { held } else { target };
        let mut most = if grows(i, moves) { share(i) } else { target };
        if grows(i, moves) && !rules.has(Rule::Reservation) {
            most = senses[i].most;
        }
        if grows(i, moves)
            && !rules.has(Rule::GrowFully)
            && observation.guests[i].memory.target_bytes.is_some()
        {
            most = most.min(target + observation.guests[i].ram_bytes / PARTIAL_GROWTH_PART);
        }
        let need = senses[i].need.clamp(target, most.max(target));
        [committed, need.max(committed), most.max(committed)].map(|bytes| bytes.saturating_add(overhead))
    };
    for at in (0..nodes).rev() {
        let charged = forest.nodes[at].charged_within();
        let (mut inner, mut asked) = ([charged; 3], charged);
        for guest in forest.guests_of(at) {
            let guest = *guest as usize;
            let [committed, needed, wanted] = bound(guest, moves);
            let view = &observation.guests[guest];
            let took = view.out_of_memory != OutOfMemory::No;
            let least = if took { view.hard_floor_bytes() + view.overhead_bytes } else { committed };
            asked = asked.saturating_add(least);
            inner[0] = inner[0].saturating_add(committed);
            inner[1] = inner[1].saturating_add(needed);
            inner[2] = inner[2].saturating_add(wanted);
        }
        for child in forest.children_of(at) {
            let child = *child as usize;
            asked = asked.saturating_add(sums.asked[child]);
            inner[0] = inner[0].saturating_add(sums.committed[child]);
            inner[1] = inner[1].saturating_add(sums.needed[child]);
            inner[2] = inner[2].saturating_add(sums.wanted[child]);
        }
        let most = forest.nodes[at].ceiling.max(asked);
        let [committed, needed, wanted] = inner.map(|bytes| bytes.min(most));
        (sums.committed[at], sums.needed[at], sums.wanted[at]) = (committed, needed, wanted);
        (sums.asked[at], sums.inner[at]) = (asked, inner);
    }
    let mut granted = vec![u64::MAX; nodes];
    // Where more is held already than there may be, nobody may keep what it holds just because it holds it.
    let mut blocked = vec![false; nodes];
    let (mut shares, mut given): (Vec<Share>, Vec<u64>) = (vec![], vec![]);
    for at in 0..nodes {
        let budget = granted[at].min(forest.nodes[at].ceiling);
        let [committed, needed, wanted] = sums.inner[at];
        blocked[at] = committed > budget || at > 0 && blocked[forest.nodes[at].parent];
        shares.clear();
        let round = match () {
            () if wanted <= budget => [2, 2],
            () if needed <= budget => [1, 2],
            () if committed <= budget => [0, 1],
            () => [0, 0],
        };
        let mut member = |caps: [u64; 3], weight: u32| {
            shares.push(Share { have: caps[round[0]], cap: caps[round[1]], knee: u64::MAX, weight });
        };
        for guest in forest.guests_of(at) {
            member(bound(*guest as usize, moves), WEIGHT_DEFAULT);
        }
        for child in forest.children_of(at) {
            let child = *child as usize;
            let caps = [sums.committed[child], sums.needed[child], sums.wanted[child]];
            member(caps, forest.nodes[child].weight);
        }
        let members = budget.max(committed).saturating_sub(forest.nodes[at].charged_within());
        fill(&shares, members, 0, &mut given);
        let guests = forest.guests_of(at).len();
        for (guest, bytes) in forest.guests_of(at).iter().zip(&given) {
            let guest = *guest as usize;
            if !grows(guest, moves) {
                continue;
            }
            let bytes = match blocked[at] {
                true => 0,
                false => bytes.saturating_sub(observation.guests[guest].overhead_bytes),
            };
            let most = if rules.has(Rule::Reservation) { share(guest) } else { senses[guest].most };
            let target = (bytes / FRAME_BYTES * FRAME_BYTES).min(most).max(moves[guest].target);
            let last = observation.guests[guest].memory.target_bytes;
            let small = last
                .is_some_and(|last| target < last.saturating_add(CHANGE_BYTES_MIN) && target > last)
                && target < senses[guest].most
                && rules.has(Rule::Hysteresis);
            // So little is not worth it; who is to have more later waits for that.
            let target = if small { moves[guest].target } else { target };
            let waits = target.saturating_add(CHANGE_BYTES_MIN) <= share(guest);
            moves[guest] = match () {
                () if small && !waits => Move { target, pause: Some(Pause::Small) },
                () if target < share(guest) => Move { target, pause: Some(Pause::WaitsForOthers) },
                () => Move { target, pause: None },
            };
        }
        for (child, bytes) in forest.children_of(at).iter().zip(&given[guests..]) {
            granted[*child as usize] = *bytes;
        }
    }
}
