//! A container's limits, with the words and meanings of cgroup v2's memory controller
//! (`Documentation/admin-guide/cgroup-v2.rst`).

use crate::bytes;
use crate::domain::Domain;
use crate::objects::ObjectKind;
use serde::{Deserialize, Deserializer, Serialize};
use std::str::FromStr;
use utoipa::ToSchema;

/// Default of `weight`, as in cgroup v2.
pub const WEIGHT_DEFAULT: u32 = 100;
/// Bounds of `weight`, as in cgroup v2.
pub const WEIGHT_RANGE: std::ops::RangeInclusive<u32> = 1..=10_000;

/// What a container may use, and what is kept for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Never reclaimed below this. Bytes.
    pub min_bytes: u64,
    /// Reclaimed below this only when nothing else is left. Bytes.
    pub low_bytes: u64,
    /// Reclaimed at once above this. Bytes; `null` for none.
    pub high_bytes: Option<u64>,
    /// Never exceeded. Bytes; `null` for none.
    pub max_bytes: Option<u64>,
    /// Divides what is contended among siblings, 1 to 10000.
    pub weight: u32,
    /// Most virtual CPUs of the guests in it; `null` for no limit.
    pub max_vcpus: Option<u32>,
    /// Most guests in it; `null` for no limit.
    pub max_guests: Option<u32>,
    /// Most virtio devices of those guests; `null` for no limit.
    pub max_devices: Option<u32>,
    /// Most open file descriptors of their `vmm`s; `null` for no limit.
    pub max_fds: Option<u32>,
    /// Most threads of their `vmm`s; `null` for no limit.
    pub max_threads: Option<u32>,
    /// Trust domain of the guests in it and in the containers inside it: pages of images are shared inside one alone. `null`
    /// for that of the container above; a container in the root is its own.
    #[schema(value_type = Option<String>)]
    pub domain: Option<Domain>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_bytes: 0,
            low_bytes: 0,
            high_bytes: None,
            max_bytes: None,
            weight: WEIGHT_DEFAULT,
            max_vcpus: None,
            max_guests: None,
            max_devices: None,
            max_fds: None,
            max_threads: None,
            domain: None,
        }
    }
}

/// A change of limits: a field that is absent stays as it is, `null` takes a limit away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsPatch {
    /// New `min`, bytes; `null` for none, which is 0.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is::<0, _>")]
    pub min_bytes: Option<u64>,
    /// New `low`, bytes; `null` for none, which is 0.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is::<0, _>")]
    pub low_bytes: Option<u64>,
    /// New `high`, bytes; `null` for none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    #[schema(value_type = Option<u64>)]
    pub high_bytes: Option<Option<u64>>,
    /// New `max`, bytes; `null` for none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    #[schema(value_type = Option<u64>)]
    pub max_bytes: Option<Option<u64>>,
    /// New `weight`, 1 to 10000; `null` for the default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "weight")]
    pub weight: Option<u32>,
    /// New `max_vcpus`; `null` for none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    #[schema(value_type = Option<u32>)]
    pub max_vcpus: Option<Option<u32>>,
    /// New `max_guests`; `null` for none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    #[schema(value_type = Option<u32>)]
    pub max_guests: Option<Option<u32>>,
    /// New `max_devices`; `null` for none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    #[schema(value_type = Option<u32>)]
    pub max_devices: Option<Option<u32>>,
    /// New `max_fds`; `null` for none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    #[schema(value_type = Option<u32>)]
    pub max_fds: Option<Option<u32>>,
    /// New `max_threads`; `null` for none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    #[schema(value_type = Option<u32>)]
    pub max_threads: Option<Option<u32>>,
    /// New `domain`; `null` for that of the container above.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "present")]
    #[schema(value_type = Option<String>)]
    pub domain: Option<Option<Domain>>,
}

/// A field that is there and `null` is taken back to what it is without being set (RFC 7396, JSON Merge Patch).
fn null_is<'de, const NONE: u64, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Option::<u64>::deserialize(deserializer).map(|value| Some(value.unwrap_or(NONE)))
}

fn weight<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    Option::<u32>::deserialize(deserializer).map(|value| Some(value.unwrap_or(WEIGHT_DEFAULT)))
}

/// Tells a field that is `null` from one that is absent (RFC 7396, JSON Merge Patch).
mod present {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer, T: Serialize>(
        value: &Option<Option<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().and_then(Option::as_ref).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<T>>, D::Error> {
        Option::<T>::deserialize(deserializer).map(Some)
    }
}

/// Why limits are refused. Names the field, the value and the bound.
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
    /// Checks what can be said of one container alone.
    ///
    /// # Errors
    /// The first of [`Limits::violations`].
    pub fn validate(&self) -> Result<(), LimitsError> {
        self.violations().into_iter().next().map_or(Ok(()), Err)
    }

    /// Every bound that is broken in one container alone: `min <= low` is not demanded (cgroup v2 does not either),
    /// but no protection may exceed `max`, and a `max` or `high` of zero would forbid every guest.
    #[must_use]
    pub fn violations(&self) -> Vec<LimitsError> {
        let mut broken = Vec::new();
        let mut fail = |field, value: u64, bound: String| {
            broken.push(LimitsError { field, value: value.to_string(), bound });
        };
        let amounts = [
            ("min_bytes", Some(self.min_bytes), true),
            ("low_bytes", Some(self.low_bytes), true),
            ("high_bytes", self.high_bytes, false),
            ("max_bytes", self.max_bytes, false),
        ];
        for (field, value, zero_allowed) in amounts {
            match value {
                Some(0) if !zero_allowed => {
                    fail(field, 0, "must be at least 1 (leave it out for no limit)".into());
                }
                Some(v) if v > bytes::BYTES_MAX => {
                    fail(field, v, format!("must be at most {} (64T)", bytes::BYTES_MAX));
                }
                // What exceeds every bound need not be told to exceed another field as well.
                Some(v) if field != "max_bytes" && self.max_bytes.is_some_and(|max| max > 0 && v > max) => {
                    let max = self.max_bytes.unwrap_or_default();
                    fail(field, v, format!("must be at most max_bytes, which is {max}"));
                }
                _ => {}
            }
        }
        if !WEIGHT_RANGE.contains(&self.weight) {
            fail("weight", self.weight.into(), "must be between 1 and 10000".into());
        }
        broken
    }

    /// These limits with a change applied.
    #[must_use]
    pub fn patched(&self, patch: &LimitsPatch) -> Self {
        Self {
            min_bytes: patch.min_bytes.unwrap_or(self.min_bytes),
            low_bytes: patch.low_bytes.unwrap_or(self.low_bytes),
            high_bytes: patch.high_bytes.unwrap_or(self.high_bytes),
            max_bytes: patch.max_bytes.unwrap_or(self.max_bytes),
            weight: patch.weight.unwrap_or(self.weight),
            max_vcpus: patch.max_vcpus.unwrap_or(self.max_vcpus),
            max_guests: patch.max_guests.unwrap_or(self.max_guests),
            max_devices: patch.max_devices.unwrap_or(self.max_devices),
            max_fds: patch.max_fds.unwrap_or(self.max_fds),
            max_threads: patch.max_threads.unwrap_or(self.max_threads),
            domain: patch.domain.clone().unwrap_or_else(|| self.domain.clone()),
        }
    }

    /// The most objects of a kind; `None` for no limit.
    #[must_use]
    pub fn max_of(&self, kind: ObjectKind) -> Option<u32> {
        match kind {
            ObjectKind::Vcpus => self.max_vcpus,
            ObjectKind::Guests => self.max_guests,
            ObjectKind::Devices => self.max_devices,
            ObjectKind::Fds => self.max_fds,
            ObjectKind::Threads => self.max_threads,
        }
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
    #[error(
        "{0:?} is no key of a limit; there are max, high, low, min, weight, max-vcpus, max-guests, max-devices, max-fds and max-threads"
    )]
    UnknownKey(String),
    /// A key that is given twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// A value that is not an amount.
    #[error("{key}: {wrong}")]
    Bytes {
        /// Which key.
        key: &'static str,
        /// What is wrong.
        wrong: bytes::ParseBytesError,
    },
    /// A weight that is not a number.
    #[error("weight: {0:?} is not a number between 1 and 10000")]
    Weight(String),
    /// A limit on objects that is not a number.
    #[error("{key}: {value:?} is neither none nor a number between 0 and 4294967295")]
    Count {
        /// Which key.
        key: &'static str,
        /// What was given.
        value: String,
    },
    /// Values that contradict each other or a bound.
    #[error(transparent)]
    Limits(#[from] LimitsError),
}

impl LimitsPatch {
    /// The change of a limit on objects.
    pub fn object_mut(&mut self, kind: ObjectKind) -> &mut Option<Option<u32>> {
        match kind {
            ObjectKind::Vcpus => &mut self.max_vcpus,
            ObjectKind::Guests => &mut self.max_guests,
            ObjectKind::Devices => &mut self.max_devices,
            ObjectKind::Fds => &mut self.max_fds,
            ObjectKind::Threads => &mut self.max_threads,
        }
    }
}

/// A number of objects, or `none`.
fn count(kind: ObjectKind, value: &str) -> Result<Option<u32>, ParseLimitsError> {
    match value.trim() {
        "none" => Ok(None),
        number => number.parse().map(Some).map_err(|_| ParseLimitsError::Count {
            key: kind.key(),
            value: number.chars().take(32).collect(),
        }),
    }
}

impl FromStr for LimitsPatch {
    type Err = ParseLimitsError;

    /// Reads `512M` (short for `max=512M`) and `max=2G,high=1.5G,low=512M,min=256M,weight=200,max-vcpus=4`; `max=none` takes a
    /// limit away.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut patch = Self::default();
        for part in text.split(',') {
            let (key, value) = part.split_once('=').unwrap_or(("max", part));
            let amount = |key| bytes::parse(value).map_err(|wrong| ParseLimitsError::Bytes { key, wrong });
            let bound = |key| if value.trim() == "none" { Ok(None) } else { amount(key).map(Some) };
            if let Some(kind) = ObjectKind::ALL.into_iter().find(|kind| kind.key() == key.trim()) {
                if patch.object_mut(kind).replace(count(kind, value)?).is_some() {
                    return Err(ParseLimitsError::Twice(kind.key()));
                }
                continue;
            }
            let twice = match key.trim() {
                "max" => patch.max_bytes.replace(bound("max")?).map(|_| "max"),
                "high" => patch.high_bytes.replace(bound("high")?).map(|_| "high"),
                "low" => patch.low_bytes.replace(amount("low")?).map(|_| "low"),
                "min" => patch.min_bytes.replace(amount("min")?).map(|_| "min"),
                "weight" => {
                    let weight = value
                        .trim()
                        .parse()
                        .map_err(|_| ParseLimitsError::Weight(value.chars().take(32).collect()))?;
                    patch.weight.replace(weight).map(|_| "weight")
                }
                other => return Err(ParseLimitsError::UnknownKey(other.chars().take(32).collect())),
            };
            if let Some(key) = twice {
                return Err(ParseLimitsError::Twice(key));
            }
        }
        Limits::default().patched(&patch).validate()?;
        Ok(patch)
    }
}

#[cfg(test)]
#[path = "limits_test.rs"]
mod tests;
