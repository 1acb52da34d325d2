//! Waiting with a deadline: nothing in these tests waits for ever, and a miss says what was seen last.

use anyhow::{Result, bail};
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Looks until the condition holds; the error names what was waited for and what was seen last.
///
/// # Errors
/// When looking fails or the deadline passes.
pub fn until<T: Debug>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T>,
    holds: impl Fn(&T) -> bool,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let seen = look()?;
        if holds(&seen) {
            return Ok(seen);
        }
        if Instant::now() >= end {
            bail!("not within {deadline:?}: {what}; last seen: {seen:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
