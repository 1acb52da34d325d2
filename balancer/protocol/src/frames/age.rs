//! The age of a frame's state: how long it has been what it is.
//!
//! An entry has eight bits for it: the minute in which it entered its state, modulo 255, plus one. Before a number
//! comes round again the writer rewrites the oldest stamps to 0, "longer ago than can be told".

/// One tick of ages, milliseconds.
pub const AGE_TICK_MS: u64 = 60_000;
/// Stamps older than this many ticks are retired when it is time to: ages are told up to about two hours.
pub(super) const TICKS_KEPT: u64 = 128;
/// Retiring is due every so many ticks, so that no stamp gets older than `TICKS_KEPT` and twice this: less than 255.
pub(super) const TICKS_BETWEEN_RETIRING: u64 = 32;
const STAMPS: u64 = 255;

/// The stamp of a tick.
pub(super) fn stamp(tick: u64) -> u8 {
    u8::try_from(tick % STAMPS + 1).expect("1..=255")
}

/// Ticks since a stamp; `None` if it was retired.
pub(super) fn ticks_since(stamp: u8, tick: u64) -> Option<u64> {
    let then = u64::from(stamp.checked_sub(1)?);
    Some((tick % STAMPS + STAMPS - then) % STAMPS)
}
