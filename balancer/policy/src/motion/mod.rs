//! The way of guests to their shares: which guests shrink in this tick and by how much, and which may grow already.
//!
//! ```text
//!   one tick:  1. a guest that has more than its share shrinks: at once if a limit or the host is exceeded, else by a
//!                 step
//!              2. what is free then goes to the guests it was freed for; memory that a guest holds is not free, even
//!                 if the guest was asked to release it
//!
//!   idle   |#########|####### ]         asked for less, still holds it       |#########]......|       released it
//!   needy  |######]                     waits; the memory is reserved for it |######          ########]
//! ```

mod grant;

use crate::guest::needs::Needs;
use crate::observation::Observation;
use crate::plan::CHANGE_BYTES_MIN;
use crate::rules::{Rule, Rules};
use crate::share::forest::Forest;
use crate::share::round::Part;
use grant::grant;
use protocol::bytes::FRAME_BYTES;

/// What a guest is asked to hold in this tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Move {
    /// The target, bytes.
    pub target: u64,
    /// Why it is not its share yet, if it is not.
    pub pause: Option<Pause>,
}

/// Why a target is not the share yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// It grows as others release memory.
    WaitsForOthers,
    /// It shrinks step by step.
    Step,
    /// It did not release yet what it was asked for before.
    Owes,
    /// Its statistics stopped.
    Stale,
    /// It does not do what it is asked.
    Excluded,
    /// The change is too small.
    Small,
}

/// Targets that lead from the last ones to the shares.
pub(crate) fn advance(
    observation: &Observation,
    forest: &Forest,
    needs: &[Needs],
    parts: &[Part],
    rules: Rules,
) -> Vec<Move> {
    let share = |i: usize| {
        let bytes = parts[i].bytes.saturating_sub(observation.guests[i].overhead_bytes);
        // Whole frames, rounded down so that the sum stays inside the budget.
        (bytes / FRAME_BYTES * FRAME_BYTES).max(needs[i].floor).min(observation.guests[i].ram_bytes)
    };
    let shares: Vec<u64> = (0..needs.len()).map(share).collect();
    let exceeded = exceeded(observation, forest, needs);
    let place = |i: usize| Some(observation.guests[i].container).filter(|at| *at < forest.nodes.len());
    let mut moves: Vec<Move> = Vec::with_capacity(needs.len());
    for (i, needs) in needs.iter().enumerate() {
        moves.push(shrink(observation, i, needs, shares[i], exceeded[place(i).unwrap_or(0)], rules));
    }
    grant(observation, forest, needs, &shares, &mut moves, rules);
    moves
}

/// The bound that is exceeded by the last targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exceeded {
    None,
    Host,
    Limit,
}

/// For each container, whether a bound on the way to the root is exceeded by what guests have by their last targets.
fn exceeded(observation: &Observation, forest: &Forest, needs: &[Needs]) -> Vec<Exceeded> {
    let mut have: Vec<u64> = forest.nodes.iter().map(|node| node.charged_within()).collect();
    for at in (0..forest.nodes.len()).rev() {
        for guest in forest.guests_of(at) {
            let guest = *guest as usize;
            let bytes = needs[guest].keep_target.saturating_add(observation.guests[guest].overhead_bytes);
            have[at] = have[at].saturating_add(bytes);
        }
        if at > 0 {
            let parent = forest.nodes[at].parent;
            have[parent] = have[parent].saturating_add(have[at]);
        }
    }
    let mut exceeded = vec![Exceeded::None; forest.nodes.len()];
    for at in 0..forest.nodes.len() {
        let node = &forest.nodes[at];
        let above = if at > 0 { exceeded[node.parent] } else { Exceeded::None };
        let limit = observation.containers.get(at).and_then(|view| view.limits.ceiling_bytes());
        let own = if limit.is_some_and(|limit| have[at] > limit) {
            Exceeded::Limit
        } else if at == 0 && have[at] > node.ceiling {
            Exceeded::Host
        } else {
            Exceeded::None
        };
        exceeded[at] = above.max(own);
    }
    exceeded
}

/// What a guest is asked to hold before any guest grows.
fn shrink(
    observation: &Observation,
    i: usize,
    needs: &Needs,
    share: u64,
    exceeded: Exceeded,
    rules: Rules,
) -> Move {
    let view = &observation.guests[i];
    let Some(last) = view.memory.target_bytes else { return Move { target: needs.floor, pause: None } };
    let last = last.min(needs.ceiling);
    let stay = |pause| Move { target: last, pause: Some(pause) };
    if needs.excluded {
        // Its last target stays until its share is more than it holds.
        let enough = share > needs.held.saturating_add(view.tolerance_bytes());
        let pause = if enough { None } else { Some(Pause::Excluded) };
        return Move { target: last.min(share), pause };
    }
    if share >= last {
        return Move { target: last.max(needs.floor), pause: None };
    }
    match exceeded {
        Exceeded::Limit => return Move { target: share, pause: None },
        Exceeded::Host if !needs.stale => return Move { target: share, pause: None },
        _ if needs.stale => return stay(Pause::Stale),
        _ if needs.owes => return stay(Pause::Owes),
        _ => {}
    }
    if last - share < CHANGE_BYTES_MIN && rules.has(Rule::Hysteresis) {
        return stay(Pause::Small);
    }
    let target = share.max(last.saturating_sub(needs.step));
    Move { target, pause: (target > share).then_some(Pause::Step) }
}
