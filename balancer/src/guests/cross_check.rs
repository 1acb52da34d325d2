//! Finding a `vmm` that lies in its frame table: the kernel's figures of the process are the measure.
//!
//! A table may differ from the kernel by its published error, by what the kernel's own counters leave out and by what
//! the process holds in addition to guest RAM. It may also lag: a guest touches memory all the time, and what it
//! touched since the last comparison is on top of the error. So a difference is a suspicion first, and the guest is
//! asked to compare:
//!
//! ```text
//!   each turn:  table and kernel differ --> ask the vmm to compare, now
//!   answered:   they still differ, by more than a guest can touch within the milliseconds since --> twice: it lies
//!               the answer is too old to tell, or none comes --> ask again; for a minute: it is not believed
//!               they agree --> no question for half a minute
//! ```
//!
//! Nothing that a guest is charged waits for this: the larger figure always counts. So a lie that is too small to be
//! found, or one inside a large error that the table admits to, gains nothing but a wrong figure for frames. The
//! containers that a table charges in addition to its own were allowed before, trusted or not.

use super::figures::table_bytes;
use super::reading::Reading;
use host::kernel::statm_error_frames;
use protocol::bytes::{FRAME_BYTES, Human};
use protocol::engine::Engine;
use std::time::{Duration, Instant};

/// Anonymous memory that a `vmm` may hold in addition to guest RAM: twice what an idle one takes altogether. Bytes.
const OWN_BYTES: u64 = 16 << 20;
/// What a guest may touch in a millisecond, and go on doing so: 8 GiB/s.
const TOUCH_BYTES_PER_MS: u64 = 8 << 20;
/// A comparison older than this is not an answer.
const ANSWER_AGE_MS_MAX: u64 = 50;
/// Answers in a row that convict.
const STRIKES: u32 = 2;
/// The longest time that a suspicion stays without a clear answer.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// Time between two questions once the figures agreed, or did not for good.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// Time between two questions until then.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What came out of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing new.
    Same,
    /// The table is believed no more, and why.
    Distrusted(String),
    /// The table is believed again.
    Trusted,
}

/// What is known of the honesty of a guest's table.
#[derive(Debug, Default)]
pub struct CrossCheck {
    distrusted: bool,
    strikes: u32,
    /// Since when the table differs without an answer that tells.
    suspected_at: Option<Instant>,
    /// When the question was asked that is not answered.
    asked_at: Option<Instant>,
    /// No question before this.
    not_before: Option<Instant>,
    /// The process that holds guest RAM is QEMU, which may hold anything there.
    is_qemu: bool,
}

impl CrossCheck {
    /// Of a guest on this engine. What a `vmm` holds in addition to guest RAM is known, what QEMU holds is not: there
    /// the table is only found to claim more than there is. Less gains nothing, since the kernel's figure is charged.
    #[must_use]
    pub fn of_engine(engine: Engine) -> Self {
        Self { is_qemu: engine == Engine::Qemu, ..Self::default() }
    }

    fn difference(&self, reading: &Reading) -> Option<Difference> {
        difference(reading).filter(|found| !self.is_qemu || found.table_bytes > found.kernel_bytes)
    }

    /// True until the table was found to lie.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        !self.distrusted
    }

    /// True if the guest is to be asked to compare its table, by this reading.
    #[must_use]
    pub fn wants_answer(&mut self, reading: &Reading, now: Instant) -> bool {
        if self.difference(reading).is_none() && !self.distrusted {
            (self.suspected_at, self.asked_at, self.strikes) = (None, None, 0);
            return false;
        }
        self.suspected_at.get_or_insert(now);
        self.not_before.is_none_or(|at| now >= at)
    }

    /// The guest was asked.
    pub fn asked(&mut self, now: Instant) {
        self.asked_at.get_or_insert(now);
        self.not_before = Some(now + ASK_AGAIN);
    }

    /// True if an answer is waited for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked_at.is_some()
    }

    /// What follows from a silence that lasts.
    pub fn waited(&mut self, now: Instant) -> Verdict {
        let silent = self.suspected_at.is_some_and(|at| now.duration_since(at) >= SILENT_MAX);
        if !silent || std::mem::replace(&mut self.distrusted, true) {
            return Verdict::Same;
        }
        Verdict::Distrusted(format!(
            "Its table differs from the kernel's figures, and for {} s its vmm did not compare them when it was asked",
            SILENT_MAX.as_secs()
        ))
    }

    /// The guest compared its table; this is a reading right after it said so. What it touched since the comparison,
    /// and while the reading was made, is in one of the two figures alone.
    pub fn answered(&mut self, reading: &Reading, now: Instant) -> Verdict {
        let Some(asked_at) = self.asked_at.take() else { return Verdict::Same };
        let Some(found) = self.difference(reading) else {
            (self.strikes, self.suspected_at, self.not_before) = (0, None, Some(now + ASK_EVERY));
            return if std::mem::take(&mut self.distrusted) { Verdict::Trusted } else { Verdict::Same };
        };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        if ms(reading.span) > ANSWER_AGE_MS_MAX {
            // This process was late itself: the guest answered.
            self.suspected_at = None;
            return Verdict::Same;
        }
        let totals = &reading.table.totals;
        let waited_ms = ms(reading.at.saturating_duration_since(asked_at));
        let age_ms = totals.checked_age_ms.unwrap_or(u64::MAX);
        let apart_ms = age_ms.saturating_add(ms(reading.span));
        // An answer that is older than the question, or so old that a guest may have touched anything since, does not
        // tell.
        if age_ms > waited_ms || apart_ms > ANSWER_AGE_MS_MAX || totals.torn {
            return Verdict::Same;
        }
        self.suspected_at = None;
        if found.beyond_bytes <= TOUCH_BYTES_PER_MS * (apart_ms + 1) {
            return Verdict::Same;
        }
        self.strikes = (self.strikes + 1).min(STRIKES);
        if self.strikes < STRIKES {
            return Verdict::Same;
        }
        self.not_before = Some(now + ASK_EVERY);
        if std::mem::replace(&mut self.distrusted, true) {
            Verdict::Same
        } else {
            Verdict::Distrusted(found.text())
        }
    }
}

/// A table and the kernel that cannot both be right.
#[derive(Debug, Clone, Copy)]
struct Difference {
    table_bytes: u64,
    kernel_bytes: u64,
    /// What both may be off together.
    allowed_bytes: u64,
    beyond_bytes: u64,
}

impl Difference {
    fn text(&self) -> String {
        format!(
            "Its table says {}, the kernel {} of anonymous memory: more apart than {} of error",
            Human(self.table_bytes),
            Human(self.kernel_bytes),
            Human(self.allowed_bytes)
        )
    }
}

/// By how much a table and the kernel differ beyond what either may be off.
fn difference(reading: &Reading) -> Option<Difference> {
    let (kernel, totals) = (&reading.kernel, &reading.table.totals);
    let frames_bytes = |frames: u64| frames.saturating_mul(FRAME_BYTES);
    // Frames whose state the table does not know yet, but no more than it has. One that was never compared knows
    // nothing; it does not excuse failing to compare when asked.
    let checked = totals.checked_age_ms.map_or(0, |_| totals.error_frames_max.min(totals.frames));
    let error = frames_bytes(checked);
    let counters = frames_bytes(statm_error_frames());
    let (table_bytes, kernel_bytes) =
        (table_bytes(totals), kernel.anonymous_bytes.saturating_add(kernel.swapped_bytes));
    // More there than is told: that may also be the process's own. Less: the process's own makes it even less.
    let allowed_bytes =
        if kernel_bytes > table_bytes { error + counters + OWN_BYTES } else { error + counters };
    let beyond_bytes = kernel_bytes.abs_diff(table_bytes).saturating_sub(allowed_bytes);
    (beyond_bytes > 0).then_some(Difference { table_bytes, kernel_bytes, allowed_bytes, beyond_bytes })
}

#[cfg(test)]
#[path = "cross_check_test.rs"]
mod tests;
