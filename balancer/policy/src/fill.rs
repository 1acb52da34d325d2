//! Weighted max-min fairness over bytes, without floating point.
//!
//! Water rises in vessels as wide as their weight; a vessel's lid is its cap. Above its knee a vessel is narrower: a byte there is
//! dearer, by the idle tax.
//!
//! ```text
//!   level ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
//!         |     |   |lid|    | |            above the knee: weight * (100 - tax) / 100
//!         |     |   |   |  knee.......
//!         |     |   |   |    |   |          below: weight
//! ```

/// A member of a container that takes part in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// What it has from earlier rounds, bytes.
    pub have: u64,
    /// What it can use in this round, bytes; at least `have`.
    pub cap: u64,
    /// From here on the tax is due, bytes.
    pub knee: u64,
    /// Its weight, at least 1.
    pub weight: u32,
}

/// Fixed-point bits of the water level, bytes per unit of weight: the error is below a byte at the largest weight.
const LEVEL_BITS: u32 = 16;

impl Share {
    /// What it has at a level.
    #[inline]
    fn at(&self, level: u128, tax: u32) -> u64 {
        let bytes = (level * u128::from(self.weight)) >> LEVEL_BITS;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let beyond = bytes.saturating_sub(self.knee);
        // In 64 bits: a division of 128 costs as much as all the rest.
        let taxed = beyond - (beyond / 100 * u64::from(tax) + (beyond % 100 * u64::from(tax)).div_ceil(100));
        (bytes - beyond + taxed).clamp(self.have, self.cap)
    }

    /// Bytes by which it grows with the level, in hundredths of a fixed-point unit.
    #[inline]
    fn slope(&self, bytes: u64, tax: u32) -> u128 {
        if bytes <= self.have && bytes > 0 || bytes >= self.cap {
            return 0;
        }
        u128::from(self.weight) * u128::from(if bytes > self.knee { 100 - tax } else { 100 })
    }
}

/// Raises the shares towards their caps until `budget` bytes are given out in total: everybody below their cap ends at
/// the same level in proportion to their weight, or keeps what they had above it. `tax` in percent, at most 99.
///
/// Writes into `out` what each has then; never less than before, never above the cap, in total at most `budget` unless the
/// shares had more than that already.
pub(super) fn fill(shares: &[Share], budget: u64, tax: u32, out: &mut Vec<u64>) {
    out.clear();
    let budget = u128::from(budget);
    let caps: u128 = shares.iter().map(|share| u128::from(share.cap)).sum();
    if caps <= budget {
        out.extend(shares.iter().map(|share| share.cap));
        return;
    }
    if let [share] = shares {
        out.push(u64::try_from(budget).unwrap_or(u64::MAX).clamp(share.have, share.cap));
        return;
    }
    let tax = tax.min(99);
    // What is given out at a level, and how fast that grows there.
    let sum = |level: u128| -> (u128, u128) {
        shares.iter().fold((0, 0), |(sum, slope), share| {
            let bytes = share.at(level, tax);
            (sum + u128::from(bytes), slope + share.slope(bytes, tax))
        })
    };
    // The sum grows with the level: the highest level that fits is found by Newton's steps, each between a level that fits and
    // one that does not, and by bisection where a step would leave that range or learn too little. At `above` every cap is met.
    let (mut fits, mut above) = (0u128, u128::from(u64::MAX) << (LEVEL_BITS + 8));
    let weights: u128 = shares.iter().map(|share| u128::from(share.weight)).sum();
    let mut level = (budget << LEVEL_BITS) / weights.max(1);
    // Much fewer bytes than there are shares are nothing to look for.
    let close = shares.len() as u128 / 64;
    let mut steps = 0u32;
    while above - fits > 1 {
        if level <= fits || level >= above {
            level = fits.midpoint(above);
        }
        let (given, slope) = sum(level);
        if given <= budget {
            fits = level;
            if budget - given <= close {
                break;
            }
        } else {
            above = level;
        }
        steps += 1;
        level = match slope {
            0 => fits.midpoint(above),
            _ if steps.is_multiple_of(4) => fits.midpoint(above),
            _ if given <= budget => level + (((budget - given) * 100) << LEVEL_BITS) / slope,
            _ => level.saturating_sub((((given - budget) * 100) << LEVEL_BITS).div_ceil(slope)),
        };
    }
    out.extend(shares.iter().map(|share| share.at(fits, tax)));
}
