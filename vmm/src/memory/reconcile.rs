//! Seeing what the kernel did: first touch, refault, and pages that went away.
//!
//! The kernel populates guest RAM without telling anyone. A pass compares each frame's state with the page map, block by
//! block, and mends the table. A device may change a frame meanwhile, so a change is only made where the state is still
//! the one that was read *before* the page map: what a device did since then is newer and wins.

use super::{Pagemap, Ram};
use protocol::frames::{FrameTable, State};
use std::io;
use std::time::{Duration, Instant};

const FRAMES_PER_BLOCK: usize = 512;

/// What a pass found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconciled {
    /// Frames whose state was mended.
    pub mended_frames: u64,
    /// Time that the pass took.
    pub took: Duration,
}

/// Compares the whole table with the kernel's page map once.
///
/// # Errors
/// When the page map cannot be read.
pub fn reconcile(ram: &Ram, table: &FrameTable, pagemap: &Pagemap) -> io::Result<Reconciled> {
    let started = Instant::now();
    let mut mended_frames = 0;
    let mut states = [State::Untouched; FRAMES_PER_BLOCK];
    let mut held = [false; FRAMES_PER_BLOCK];
    for (region, host) in ram.slots() {
        for first in (region.first..region.first + region.count).step_by(FRAMES_PER_BLOCK) {
            table.states(first, &mut states);
            pagemap.held(host + (first - region.first) * 4096, &mut held)?;
            mended_frames += mend_block(table, first, &states, &held);
        }
    }
    table.reconciled();
    Ok(Reconciled { mended_frames, took: started.elapsed() })
}

/// What a frame is, given what it was and whether the kernel holds a page for it; `None` if nothing is to be mended.
fn mended(state: State, held: bool) -> Option<State> {
    match (state, held) {
        (State::Untouched | State::Ballooned | State::Reported, true) => Some(State::Private),
        (State::Private, false) => Some(State::Untouched),
        _ => None,
    }
}

/// Mends one block, a call per run of equal changes.
fn mend_block(table: &FrameTable, first: u64, states: &[State], held: &[bool]) -> u64 {
    let mut mended_frames = 0;
    let mut at = 0;
    while at < states.len() {
        let change = mended(states[at], held[at]);
        let end = (at..states.len()).find(|i| mended(states[*i], held[*i]) != change).unwrap_or(states.len());
        if let Some(to) = change {
            let base = first;
            let read = |frame: u64| states[usize::try_from(frame - base).expect("inside the block")];
            let set = table.set_if(first + at as u64, (end - at) as u64, to, |frame, now| now == read(frame));
            mended_frames += set.changed;
        }
        at = end;
    }
    mended_frames
}
