//! Values of arguments, as more than one command reads them.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A value, or the word that stands for none: `default`, `-`. In an `Option`, it is an argument that may also be left
/// out, which changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OrWord<T>(pub Option<T>);

/// Reads a value with `parse`, unless it is the word.
pub(super) fn or_word<T, E>(
    word: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<OrWord<T>, E> {
    if text == word { Ok(OrWord(None)) } else { parse(text).map(|value| OrWord(Some(value))) }
}

/// Reads a number, or names the bounds that it exceeds.
pub(super) fn between<T: FromStr + PartialOrd + Display>(
    text: &str,
    range: RangeInclusive<T>,
) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("must be a number between {} and {}", range.start(), range.end()))
}
