//! Changes of a container's charge that others cause, and how much of them does not count yet.
//!
//! A container that stops using a shared page raises the charges of the others: the rise is *inherited*. A container
//! that starts using it lowers them. Both count against a limit gradually: the part that does not count yet halves
//! with every half-life. Changes that a container causes itself count at once.
//!
//! ```text
//!   charged      ____________________|~~~~~~~~~~~~~~~~~~~~~~
//!                                    | others leave
//!   enforceable  ____________________.--~~~~~~~~~~~~~~~~~~~~
//!                                     \__ the difference is inherited, and halves with every half-life
//! ```
//!
//! It works in both directions so that it cannot be exploited: for two containers that use a page in turns, the mean
//! of what they are charged counts, whatever their timing. When a container stops using pages itself, the inheritance
//! falls in proportion.

use super::ContainerId;
use super::ledger::Change;
use std::num::NonZeroU64;

/// Half of a change that others caused counts against a limit after this time, milliseconds.
pub const GRACE_HALF_LIFE_MS: NonZeroU64 = NonZeroU64::new(10_000).expect("not zero");

/// Inherited units of each container: charged less enforceable. Negative after others joined.
#[derive(Debug)]
pub(super) struct Inherited {
    half_life_ms: NonZeroU64,
    now_ms: u64,
    /// Units, and the time of that figure.
    of: Vec<(i64, u64)>,
}

impl Inherited {
    pub fn new(half_life_ms: NonZeroU64) -> Self {
        Self { half_life_ms, now_ms: 0, of: vec![] }
    }

    pub fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    pub fn units(&self, container: ContainerId) -> i64 {
        self.of.get(usize::from(container.0)).map_or(0, |(units, at_ms)| self.decayed(*units, *at_ms))
    }

    pub fn book(&mut self, change: Change) {
        let before = self.units(change.container);
        let after = match (change.own, change.after < change.before) {
            (false, _) => before.saturating_add_unsigned(change.after).saturating_sub_unsigned(change.before),
            (true, true) => scaled(before, change.after, change.before),
            (true, false) => before,
        };
        self.set(change.container, after);
    }

    pub fn forget(&mut self, container: ContainerId) {
        self.set(container, 0);
    }

    pub fn storage_bytes(&self) -> usize {
        self.of.capacity() * size_of::<(i64, u64)>()
    }

    fn set(&mut self, container: ContainerId, units: i64) {
        let index = usize::from(container.0);
        if index >= self.of.len() {
            if units == 0 {
                return;
            }
            self.of.resize(index + 1, (0, 0));
        }
        self.of[index] = (units, self.now_ms);
    }

    /// Halves once per half-life, linear in between.
    fn decayed(&self, units: i64, at_ms: u64) -> i64 {
        let half_life = self.half_life_ms.get();
        let elapsed = self.now_ms - at_ms;
        let halvings = u32::try_from(elapsed / half_life).unwrap_or(u32::MAX);
        let halved = units.checked_shr(halvings.min(63)).unwrap_or(0);
        scaled(halved, 2 * half_life - elapsed % half_life, 2 * half_life)
    }
}

/// `units * numerator / denominator`, without overflow; towards zero.
fn scaled(units: i64, numerator: u64, denominator: u64) -> i64 {
    let scaled = i128::from(units) * i128::from(numerator) / i128::from(denominator.max(1));
    i64::try_from(scaled).expect("the numerator is not above the denominator")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: ContainerId = ContainerId(1);
    const HALF_LIFE_MS: NonZeroU64 = NonZeroU64::new(1000).unwrap();

    fn change(before: u64, after: u64, own: bool) -> Change {
        Change { container: A, before, after, own }
    }

    #[test]
    fn half_of_the_inheritance_is_left_after_a_half_life() {
        let mut inherited = Inherited::new(HALF_LIFE_MS);
        inherited.book(change(100, 900, false));
        for (now_ms, units) in [(0, 800), (500, 600), (1000, 400), (2000, 200), (1_000_000, 0)] {
            inherited.advance(now_ms);
            assert_eq!(inherited.units(A), units, "after {now_ms} ms");
        }
    }

    #[test]
    fn changes_that_a_container_causes_itself_are_not_inherited() {
        let mut inherited = Inherited::new(HALF_LIFE_MS);
        inherited.book(change(0, 1000, true));
        assert_eq!(inherited.units(A), 0);
        inherited.book(change(1000, 2000, false));
        inherited.book(change(2000, 500, true));
        assert_eq!(
            inherited.units(A),
            250,
            "three quarters of the inheritance went with three quarters of the charge"
        );
    }

    proptest! {
        /// For containers that use a page in turns, about the mean of the charge counts, whatever the rhythm.
        #[test]
        fn using_a_page_in_turns_gains_nothing(on_ms in 1u64..50, off_ms in 1u64..50) {
            let mut inherited = Inherited::new(HALF_LIFE_MS);
            let (mut now, mut charged_ms, mut enforced_ms) = (0u64, 0i128, 0i128);
            // It starts shared, at half; the other container leaves for `off_ms` and joins for `on_ms`.
            for _ in 0..1000 {
                for (before, after, ms) in [(500_000, 1_000_000, off_ms), (1_000_000, 500_000, on_ms)] {
                    inherited.book(change(before, after, false));
                    charged_ms += i128::from(after) * i128::from(ms);
                    for _ in 0..ms {
                        now += 1;
                        inherited.advance(now);
                        enforced_ms += i128::from(after) - i128::from(inherited.units(A));
                    }
                }
            }
            let error = (charged_ms - enforced_ms).abs();
            // The start counts as one inheritance, which weighs less than three half-lives; the rest is rounding.
            prop_assert!(error <= 500_000 * 3_000, "{} of {}", error, charged_ms);
        }
    }
}
