//! Weighted max-min fairness over bytes, without floating point.
//!
//! Water rises in vessels that are as wide as their weight; the lid of a vessel is its cap. Above its knee a vessel
//! is narrower: a byte there costs more, by the idle tax.
//!
//! ```text
//!   level ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
//!         |     |   |lid|    | |            above the knee: weight * (100 - tax) / 100
//!         |     |   |   |  knee.......
//!         |     |   |   |    |   |          below: weight
//! ```

/// A member of a container that takes part in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// What it has from earlier rounds, bytes.
    pub have: u64,
    /// What it can use in this round, bytes; at least `have`.
    pub cap: u64,
    /// The tax is due above this, bytes.
    pub knee: u64,
    /// Its weight, at least 1.
    pub weight: u32,
}

/// Fixed-point bits of the water level, bytes per unit of weight: the error is below a byte at the largest weight.
const LEVEL_BITS: u32 = 16;

impl Share {
    /// What it has at a level of the water.
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

/// Raises the shares towards their caps until `budget` bytes are given out in total. A member below its cap ends at
/// the same level as the others, in proportion to its weight, or keeps what it had above that level. `tax` is in
/// percent, at most 99.
///
/// Writes into `out` what each member has then: never less than before, never above its cap, and in total at most
/// `budget`, unless the members had more than that before.
pub(crate) fn fill(shares: &[Share], budget: u64, tax: u32, out: &mut Vec<u64>) {
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
    // The sum grows with the level. The highest level that fits is found by Newton's method, between a level that
    // fits and one that does not, and by bisection if a step would leave that range or narrow it too little. At
    // `above` every cap is reached.
    let (mut fits, mut above) = (0u128, u128::from(u64::MAX) << (LEVEL_BITS + 8));
    let weights: u128 = shares.iter().map(|share| u128::from(share.weight)).sum();
    let mut level = (budget << LEVEL_BITS) / weights.max(1);
    // A rest of far fewer bytes than there are members is not worth another step.
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
