//! The units of limits: how a value is read, checked and shown.

use super::{Limits, LimitsError, WEIGHT_DEFAULT, WEIGHT_RANGE};
use crate::bytes::{self, BYTES_MAX, Human, ParseBytesError};
use crate::domain::{Domain, DomainError};

/// A type of values of limits.
pub(super) trait Value {
    /// The value of a limit that is not set.
    fn not_set() -> Self;
}

/// No protection.
impl Value for u64 {
    fn not_set() -> Self {
        0
    }
}

/// No limit, or the domain of the container above.
impl<T> Value for Option<T> {
    fn not_set() -> Self {
        None
    }
}

/// The default weight.
impl Value for u32 {
    fn not_set() -> Self {
        WEIGHT_DEFAULT
    }
}

/// Why a text is not a value of a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It is not an amount of memory.
    #[error(transparent)]
    Bytes(#[from] ParseBytesError),
    /// It is not a weight.
    #[error("{0:?} is not a number between 1 and 10000")]
    Weight(String),
    /// It is not a number of objects.
    #[error("{0:?} is neither none nor a number between 0 and 4294967295")]
    Count(String),
    /// It is not the name of a trust domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

/// How a value is read, checked and shown.
pub(super) trait Unit {
    /// The type of the value.
    type Value;
    /// The value in the help of a flag.
    const VALUE_NAME: &'static str;
    /// The least and the most of its values that are numbers.
    const RANGE: Option<(u64, u64)> = None;
    /// True if an option string has such values, which also come from programs that start guests.
    const IS_OPTION: bool = true;

    fn read(text: &str) -> Result<Self::Value, ValueError>;

    /// The bound that the value breaks.
    fn broken(_field: &'static str, _value: &Self::Value, _limits: &Limits) -> Option<LimitsError> {
        None
    }

    /// The value as text; `None` if a value that is not set is not shown.
    fn text(value: &Self::Value) -> Option<String>;
}

/// Memory that is protected.
pub(super) struct Amount;
/// Memory that is the most, or `none`.
pub(super) struct Bound;
/// A share among siblings.
pub(super) struct Weight;
/// A number of objects that is the most, or `none`.
pub(super) struct Count;
/// A trust domain, or `none`.
pub(super) struct DomainName;

impl Unit for Amount {
    type Value = u64;
    const VALUE_NAME: &'static str = "BYTES";
    const RANGE: Option<(u64, u64)> = Some((0, BYTES_MAX));

    fn read(text: &str) -> Result<u64, ValueError> {
        Ok(bytes::parse(text)?)
    }

    fn broken(field: &'static str, value: &u64, limits: &Limits) -> Option<LimitsError> {
        let bound = match limits.max_bytes {
            _ if *value > BYTES_MAX => format!("must be at most {BYTES_MAX} (64T)"),
            // What exceeds every bound is not reported again for another field, and `max` is not compared with itself.
            Some(max) if max > 0 && *value > max && field != "max_bytes" => {
                format!("must be at most max_bytes, which is {max}")
            }
            _ => return None,
        };
        Some(LimitsError { field, value: value.to_string(), bound, by_itself: *value > BYTES_MAX })
    }

    fn text(value: &u64) -> Option<String> {
        Some(Human(*value).to_string())
    }
}

impl Unit for Bound {
    type Value = Option<u64>;
    const VALUE_NAME: &'static str = "BYTES";
    const RANGE: Option<(u64, u64)> = Some((1, BYTES_MAX));

    fn read(text: &str) -> Result<Option<u64>, ValueError> {
        or_none(text, Amount::read)
    }

    fn broken(field: &'static str, value: &Option<u64>, limits: &Limits) -> Option<LimitsError> {
        match (*value)? {
            0 => {
                let bound = "must be at least 1 (leave it out for no limit)".into();
                Some(LimitsError { field, value: "0".into(), bound, by_itself: true })
            }
            bytes => Amount::broken(field, &bytes, limits),
        }
    }

    fn text(value: &Option<u64>) -> Option<String> {
        value.as_ref().map_or(Some("none".into()), Amount::text)
    }
}

impl Unit for Weight {
    type Value = u32;
    const VALUE_NAME: &'static str = "N";
    const RANGE: Option<(u64, u64)> = Some((*WEIGHT_RANGE.start() as u64, *WEIGHT_RANGE.end() as u64));

    fn read(text: &str) -> Result<u32, ValueError> {
        let weight = text.trim().parse().ok().filter(|weight| WEIGHT_RANGE.contains(weight));
        weight.ok_or_else(|| ValueError::Weight(shown(text)))
    }

    fn broken(field: &'static str, value: &u32, _limits: &Limits) -> Option<LimitsError> {
        let bound = || "must be between 1 and 10000".into();
        let error = || LimitsError { field, value: value.to_string(), bound: bound(), by_itself: true };
        (!WEIGHT_RANGE.contains(value)).then(error)
    }

    fn text(value: &u32) -> Option<String> {
        Some(value.to_string())
    }
}

impl Unit for Count {
    type Value = Option<u32>;
    const VALUE_NAME: &'static str = "N";
    const RANGE: Option<(u64, u64)> = Some((0, u32::MAX as u64));

    fn read(text: &str) -> Result<Option<u32>, ValueError> {
        or_none(text, |number| number.parse().map_err(|_| ValueError::Count(shown(number))))
    }

    fn text(value: &Option<u32>) -> Option<String> {
        value.map(|count| count.to_string())
    }
}

impl Unit for DomainName {
    type Value = Option<Domain>;
    const VALUE_NAME: &'static str = "NAME";
    // The administrator of the host decides which guests trust each other, not the program that starts one of them.
    const IS_OPTION: bool = false;

    fn read(text: &str) -> Result<Option<Domain>, ValueError> {
        or_none(text, |name| Ok(name.parse()?))
    }

    fn text(value: &Option<Domain>) -> Option<String> {
        value.as_ref().map(Domain::to_string)
    }
}

fn or_none<T>(text: &str, read: impl FnOnce(&str) -> Result<T, ValueError>) -> Result<Option<T>, ValueError> {
    match text.trim() {
        "none" => Ok(None),
        value => read(value).map(Some),
    }
}

fn shown(text: &str) -> String {
    text.trim().chars().take(32).collect()
}
