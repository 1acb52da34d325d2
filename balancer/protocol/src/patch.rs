//! JSON Merge Patch (RFC 7396): in a change, a field that is absent stays as it is, and `null` removes a value.

use serde::{Deserialize, Deserializer};

/// Reads a field that is there; for `Option<Option<T>>` with `#[serde(default, deserialize_with = "null_or_value")]`.
/// Such a field is `None` if it is absent, and `Some(None)` if it is `null`.
///
/// # Errors
/// When the value is neither `null` nor a `T`.
pub fn null_or_value<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
