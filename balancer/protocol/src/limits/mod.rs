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
