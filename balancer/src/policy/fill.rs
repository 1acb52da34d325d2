//! Weighted max-min fairness over bytes, without floating point.

/// A member of a container that takes part in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// What it has from earlier rounds, bytes.
    pub have: u64,
    /// What it can use in this round, bytes; at least `have`.
    pub cap: u64,
    /// Its weight, at least 1.
    pub weight: u32,
}

/// Fixed-point bits of the water level, bytes per unit of weight: the error is below a byte at the largest weight.
const LEVEL_BITS: u32 = 16;

/// Raises the shares towards their caps until `budget` bytes are given out in total: everybody below their cap ends at
/// the same level in proportion to their weight, or keeps what they had above it.
///
/// Returns what each has then; never less than before, never above the cap, in total at most `budget` unless the
/// shares had more than that already.
pub(super) fn fill(shares: &[Share], budget: u64) -> Vec<u64> {
    let caps: u128 = shares.iter().map(|share| u128::from(share.cap)).sum();
    if caps <= u128::from(budget) {
        return shares.iter().map(|share| share.cap).collect();
    }
    let at = |level: u128, share: &Share| -> u64 {
        let bytes = (level * u128::from(share.weight)) >> LEVEL_BITS;
        u64::try_from(bytes).unwrap_or(u64::MAX).clamp(share.have, share.cap)
    };
    let sum = |level: u128| -> u128 { shares.iter().map(|share| u128::from(at(level, share))).sum() };
    // The sum grows with the level: the highest level that fits is found by bisection. At `above` every cap is met.
    let (mut fits, mut above) = (0u128, u128::from(u64::MAX) << LEVEL_BITS);
    while above - fits > 1 {
        let middle = fits.midpoint(above);
        if sum(middle) <= u128::from(budget) { fits = middle } else { above = middle }
    }
    shares.iter().map(|share| at(fits, share)).collect()
}
