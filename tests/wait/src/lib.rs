//! Waits that follow progress. A wait ends in failure when nothing moved for a while, or after a generous total. How
//! fast the machine is decides nothing: a guest that boots slowly next to other work is not a failure, and a guest that
//! hangs is one soon.
//!
//! ```text
//!   look() --holds--> done
//!      |
//!      no --> Progress::count() --another count--> the quiet time begins again
//!                               --same count-----> QUIET_MAX passed: "nothing moved"
//!                                                  TOTAL_MAX passed: "not within"
//! ```
//!
//! [`until`] is the loop of a thread. A loop of another kind (sockets with time-outs, async tasks) asks a [`Wait`] at
//! each step.

#![forbid(unsafe_code)]

mod progress;

pub use progress::{Activity, Counted, Progress, Still};

use anyhow::{Context, Result};
use std::fmt::{self, Debug};
use std::ops::Div;
use std::time::{Duration, Instant};

/// How long nothing may move. As long as the longest pause of the program under test in which it does nothing at all:
/// the balancer leaves a guest that ran out of memory alone for 30 s. Twice that, as such a pause may begin just before
/// it would have ended the wait.
pub const QUIET_MAX: Duration = Duration::from_secs(60);
/// How long a wait may last although something moves: a guest that makes progress without end is a failure as well.
pub const TOTAL_MAX: Duration = Duration::from_secs(20 * 60);
/// Time between two looks, at first and at the most. Looks become rarer while a wait lasts: a look often asks the
/// balancer, and the CPU time of its answers must not pass for progress.
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// The pause before the next look is this part of the time that the wait has lasted.
const LOOK_PART: u32 = 20;
/// Time between two counts of progress, which read files of `/proc`.
const COUNT_EVERY: Duration = Duration::from_millis(500);

/// How long a wait may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Without any progress.
    pub quiet: Duration,
    /// In total.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { quiet: QUIET_MAX, total: TOTAL_MAX }
    }
}

impl Limits {
    /// Limits for a test that expects the wait to fail: a short time without progress.
    #[must_use]
    pub fn quiet(quiet: Duration) -> Self {
        Self { quiet, ..Self::default() }
    }
}

/// Why a wait ended in failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// Nothing moved for the first of these times. The second one is how long the wait took.
    Quiet(Duration, Duration),
    /// Something moved until the end, and the total passed.
    Total(Duration),
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quiet(quiet, after) => {
                let (quiet, after) = (quiet.as_secs_f64(), after.as_secs_f64());
                write!(f, "nothing moved for {quiet:.1} s, {after:.1} s after the start")
            }
            Self::Total(total) => {
                write!(f, "not within {:.1} s, although something moved", total.as_secs_f64())
            }
        }
    }
}

impl std::error::Error for Missed {}

/// One wait: it decides from counts of progress and the time. It reads no clock, so that tests can give the time.
#[derive(Debug)]
pub struct Wait {
    limits: Limits,
    began: Instant,
    moved: Instant,
    count: Option<u64>,
}

impl Wait {
    /// A wait that begins at `now`.
    #[must_use]
    pub fn begin(limits: Limits, now: Instant) -> Self {
        Self { limits, began: now, moved: now, count: None }
    }

    /// Goes on, or says why not. `count` is another one than last time if something moved meanwhile.
    ///
    /// # Errors
    /// When nothing moved for too long, or the total has passed.
    pub fn go_on(&mut self, count: u64, now: Instant) -> Result<(), Missed> {
        if self.count.replace(count) != Some(count) {
            self.moved = now;
        }
        let (after, quiet) = (now - self.began, now - self.moved);
        if quiet >= self.limits.quiet {
            return Err(Missed::Quiet(quiet, after));
        }
        if after >= self.limits.total { Err(Missed::Total(after)) } else { Ok(()) }
    }
}

/// A [`Wait`] on the clock of this machine, which counts progress now and then.
#[derive(Debug)]
pub struct Waiting {
    wait: Wait,
    counted: Instant,
}

impl Waiting {
    /// A wait that begins now.
    #[must_use]
    pub fn begin(limits: Limits, progress: &dyn Progress) -> Self {
        let now = Instant::now();
        let wait = Wait { count: Some(progress.count()), ..Wait::begin(limits, now) };
        Self { wait, counted: now }
    }

    /// Goes on, or says why not. Returns how long to pause before the next look.
    ///
    /// # Errors
    /// When nothing moved for too long, or the total has passed.
    pub fn go_on(&mut self, progress: &dyn Progress) -> Result<Duration, Missed> {
        let now = Instant::now();
        if now - self.counted >= COUNT_EVERY.min(self.wait.limits.quiet / 4) {
            self.counted = now;
            self.wait.go_on(progress.count(), now)?;
        }
        Ok((now - self.wait.began).div(LOOK_PART).clamp(LOOK_EVERY.0, LOOK_EVERY.1))
    }
}

/// Looks until the condition holds, as long as there is progress. The error names what was waited for and what was seen
/// last.
///
/// # Errors
/// When a look fails, or the wait ends: see [`Limits`].
pub fn until<T: Debug>(
    what: &str,
    progress: &dyn Progress,
    look: impl FnMut() -> Result<T>,
    holds: impl Fn(&T) -> bool,
) -> Result<T> {
    until_within(Limits::default(), what, progress, look, holds)
}

/// As [`until`], with other limits.
///
/// # Errors
/// As of [`until`].
pub fn until_within<T: Debug>(
    limits: Limits,
    what: &str,
    progress: &dyn Progress,
    mut look: impl FnMut() -> Result<T>,
    holds: impl Fn(&T) -> bool,
) -> Result<T> {
    let mut waiting = Waiting::begin(limits, progress);
    loop {
        let seen = look()?;
        if holds(&seen) {
            return Ok(seen);
        }
        let pause =
            waiting.go_on(progress).with_context(|| format!("Waited for: {what}; last seen: {seen:?}"))?;
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
#[path = "wait_test.rs"]
mod tests;
