//! A container's limits, with the words and meanings of cgroup v2's memory controller
//! (`Documentation/admin-guide/cgroup-v2.rst`).

pub mod objects;
mod table;
mod unit;

pub use table::{Limits, LimitsPatch, Row, TABLE};
pub use unit::ValueError;

use std::str::FromStr;

/// Default of `weight`, as in cgroup v2.
pub const WEIGHT_DEFAULT: u32 = 100;
/// Bounds of `weight`, as in cgroup v2.
pub const WEIGHT_RANGE: std::ops::RangeInclusive<u32> = 1..=10_000;

/// Why a limit is refused: the field, the value and the bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but {bound}")]
pub struct LimitsError {
    /// The field as JSON names it.
    pub field: &'static str,
    /// The value that was given.
    pub value: String,
    /// What it would have to be.
    pub bound: String,
    /// True if no state and no other limit would allow the value.
    pub by_itself: bool,
}

impl Limits {
    /// Checks the bounds that concern one container alone.
    ///
    /// # Errors
    /// The first of [`Limits::violations`].
    pub fn validate(&self) -> Result<(), LimitsError> {
        self.violations().into_iter().next().map_or(Ok(()), Err)
    }

    /// Every bound that is broken in one container alone: `min <= low` is not demanded (cgroup v2 does not demand it
    /// either), but no protection may exceed `max`, and a `max` or `high` of zero would forbid every guest.
    #[must_use]
    pub fn violations(&self) -> Vec<LimitsError> {
        TABLE.iter().filter_map(|row| row.broken(self)).collect()
    }

    /// The bound on usage that is enforced now: the smaller of `high` and `max`.
    #[must_use]
    pub fn ceiling_bytes(&self) -> Option<u64> {
        match (self.high_bytes, self.max_bytes) {
            (Some(high), Some(max)) => Some(high.min(max)),
            (one, other) => one.or(other),
        }
    }
}

/// Why an option string is not a set of limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseLimitsError {
    /// A key that does not exist.
    #[error("{0:?} is not a key of a limit; the keys are {keys}", keys = keys().join(", "))]
    UnknownKey(String),
    /// A key that is given twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// A value that cannot be read.
    #[error("{key}: {wrong}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What is wrong.
        wrong: ValueError,
    },
    /// Values that contradict each other or a bound.
    #[error(transparent)]
    Limits(#[from] LimitsError),
}

/// The keys of an option string.
fn keys() -> Vec<&'static str> {
    TABLE.iter().filter(|row| row.is_option).map(|row| row.key).collect()
}

/// An amount of memory in [`OPTIONS_PATTERN`]: whole bytes, and whatever the unit, not 0 and not above the bound.
macro_rules! amount {
    () => {
        concat!(
            "(?:[1-9][0-9]{0,9}[bB]?|[1-9][0-9]{0,3}(?:[.](?:5|25|75))?[kmgKMG](?:i?[bB])?",
            "|(?:[1-9]|[1-5][0-9]|6[0-3])(?:[.]5)?[tT](?:i?[bB])?)"
        )
    };
}

/// Option strings, as a regular expression. All these are accepted unless two of their values contradict each other.
/// More are: spaces around values, 0 for a protection, and other fractions that come out as whole bytes.
pub const OPTIONS_PATTERN: &str = concat!(
    "^(?:none|",
    amount!(),
    "|(?:max|high)=(?:none|",
    amount!(),
    ")|(?:low|min)=",
    amount!(),
    "|weight=[1-9][0-9]{0,3}|max-(?:vcpus|guests|devices|fds|threads)=(?:none|[0-9]{1,9}))",
    "(?:,(?:(?:max|high)=(?:none|",
    amount!(),
    ")|(?:low|min)=",
    amount!(),
    "|weight=[1-9][0-9]{0,3}|max-(?:vcpus|guests|devices|fds|threads)=(?:none|[0-9]{1,9}))){0,9}$"
);

impl ParseLimitsError {
    /// True if each value is one, but not together with the others.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Twice(_) => true,
            Self::Limits(error) => !error.by_itself,
            Self::UnknownKey(_) | Self::Value { .. } => false,
        }
    }
}

impl FromStr for LimitsPatch {
    type Err = ParseLimitsError;

    /// Reads `512M` (short for `max=512M`) and `max=2G,high=1.5G,low=512M,min=256M,weight=200,max-vcpus=4`; `max=none`
    /// removes a limit.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut patch = Self::default();
        for part in text.split(',') {
            let (key, value) = part.split_once('=').unwrap_or(("max", part));
            let row = TABLE.iter().find(|row| row.is_option && row.key == key.trim());
            let row =
                row.ok_or_else(|| ParseLimitsError::UnknownKey(key.trim().chars().take(32).collect()))?;
            let read = row.read(&mut patch, value);
            if read.map_err(|wrong| ParseLimitsError::Value { key: row.key, wrong })? {
                return Err(ParseLimitsError::Twice(row.key));
            }
        }
        Limits::default().patched(&patch).validate()?;
        Ok(patch)
    }
}

#[cfg(test)]
#[path = "limits_test.rs"]
mod tests;
