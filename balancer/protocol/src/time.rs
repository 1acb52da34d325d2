//! Durations in messages and answers: whole milliseconds.

use std::time::Duration;

/// Whole milliseconds of a duration; `u64::MAX` for one that is longer.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_whole_and_bounded() {
        assert_eq!((millis(Duration::from_micros(1999)), millis(Duration::MAX)), (1, u64::MAX));
    }
}
