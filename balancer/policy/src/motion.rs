//! From where guests are to their shares: who shrinks by how much in this turn, and who may grow already.
//!
//! ```text
//!   one turn:    1. who has more than its share shrinks: at once if a limit or the host is exceeded, else by a step
//!                2. what is free then, by what guests hold and not by what they were asked for, goes to whom it was freed for
//!
//!   idle   |#########|####### ]         asked for less, holds it still     |#########]......|       gave it
//!   needy  |######]                     waits; nobody else may have it     |######          ########]
//! ```

use super::demand::Sense;
use super::forest::Forest;
use super::grant::grant;
use super::observation::Observation;
use super::plan::CHANGE_BYTES_MIN;
use super::round::Part;
use super::rules::{Rule, Rules};
use protocol::bytes::FRAME_BYTES;

/// What a guest is asked for in this turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Move {
    /// The target, bytes.
    pub target: u64,
    /// Why it is not its share yet, if it is not.
    pub pause: Option<Pause>,
}

/// Why a target is not the share yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// It grows as others free memory.
    WaitsForOthers,
    /// It shrinks step by step.
    Step,
    /// It still owes what it was asked for before.
    Owes,
    /// Its statistics stopped.
    Stale,
    /// It does not do what it is asked.
    Excluded,
    /// The change is too small.
    Small,
}

/// Targets that lead from the last ones to the shares.
pub(super) fn advance(
    observation: &Observation,
    forest: &Forest,
    senses: &[Sense],
    parts: &[Part],
    rules: Rules,
) -> Vec<Move> {
    let share = |i: usize| {
        let bytes = parts[i].bytes.saturating_sub(observation.guests[i].overhead_bytes);
        // Whole frames, rounded down so that the sum stays inside the budget.
        (bytes / FRAME_BYTES * FRAME_BYTES).max(senses[i].floor).min(observation.guests[i].ram_bytes)
    };
    let exceeded = exceeded(observation, forest, senses);
    let place = |i: usize| Some(observation.guests[i].container).filter(|at| *at < forest.nodes.len());
    let mut moves: Vec<Move> = Vec::with_capacity(senses.len());
    for (i, sense) in senses.iter().enumerate() {
        moves.push(shrink(observation, i, sense, share(i), exceeded[place(i).unwrap_or(0)], rules));
    }
    grant(observation, forest, senses, &share, &mut moves, rules);
    moves
}

/// Which bound is exceeded by the last targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exceeded {
    None,
    Host,
    Limit,
}

/// For each container, whether a bound on the way to the root is exceeded by what guests have by the last targets.
fn exceeded(observation: &Observation, forest: &Forest, senses: &[Sense]) -> Vec<Exceeded> {
    let mut keep: Vec<u64> = forest.nodes.iter().map(|node| node.charged_within()).collect();
    for at in (0..forest.nodes.len()).rev() {
        for guest in forest.guests_of(at) {
            let guest = *guest as usize;
            let bytes = senses[guest].keep.saturating_add(observation.guests[guest].overhead_bytes);
            keep[at] = keep[at].saturating_add(bytes);
        }
        if at > 0 {
            let parent = forest.nodes[at].parent;
            keep[parent] = keep[parent].saturating_add(keep[at]);
        }
    }
    let mut exceeded = vec![Exceeded::None; forest.nodes.len()];
    for at in 0..forest.nodes.len() {
        let node = &forest.nodes[at];
        let above = if at > 0 { exceeded[node.parent] } else { Exceeded::None };
        let limit = observation.containers.get(at).and_then(|view| view.limits.ceiling_bytes());
        let own = if limit.is_some_and(|limit| keep[at] > limit) {
            Exceeded::Limit
        } else if at == 0 && keep[at] > node.ceiling {
            Exceeded::Host
        } else {
            Exceeded::None
        };
        exceeded[at] = above.max(own);
    }
    exceeded
}

/// What a guest is asked for before anything is given to those who grow.
fn shrink(
    observation: &Observation,
    i: usize,
    sense: &Sense,
    share: u64,
    exceeded: Exceeded,
    rules: Rules,
) -> Move {
    let view = &observation.guests[i];
    let Some(last) = view.memory.target_bytes else { return Move { target: sense.floor, pause: None } };
    let last = last.min(sense.most);
    let stay = |pause| Move { target: last, pause: Some(pause) };
    if sense.excluded {
        // What it was asked for stays asked for, until its share is more than it holds.
        let enough = share > sense.held.saturating_add(view.tolerance_bytes());
        let pause = if enough { None } else { Some(Pause::Excluded) };
        return Move { target: last.min(share), pause };
    }
    if share >= last {
        return Move { target: last.max(sense.floor), pause: None };
    }
    match exceeded {
        Exceeded::Limit => return Move { target: share, pause: None },
        Exceeded::Host if !sense.stale => return Move { target: share, pause: None },
        _ if sense.stale => return stay(Pause::Stale),
        _ if sense.owes => return stay(Pause::Owes),
        _ => {}
    }
    if last - share < CHANGE_BYTES_MIN && rules.has(Rule::Hysteresis) {
        return stay(Pause::Small);
    }
    let target = share.max(last.saturating_sub(sense.step));
    Move { target, pause: (target > share).then_some(Pause::Step) }
}
