//! A guest that is made of figures.

use policy::{GuestStatistics, GuestView, OutOfMemory};
use serde::{Deserialize, Serialize};

/// What a kernel keeps free, bytes.
const FREE_BYTES_MIN: u64 = 16 << 20;
/// How fast a guest fills its page cache, bytes per second.
const READ_BYTES_PER_S: u64 = 1 << 30;
/// How fast a balloon that works fills, and how fast a slow one does; bytes per second.
const FAST_BYTES_PER_S: u64 = 2 << 30;
const SLOW_BYTES_PER_S: u64 = 24 << 20;
/// A guest stalls so long before its kernel takes memory back from the balloon, milliseconds; and by so much at a time.
const OOM_AFTER_MS: u64 = 3000;
/// The balancer follows a guest that took memory back for so long, milliseconds.
const OOM_HOLD_MS: u64 = 30_000;

/// Until a driver serves the balloon, milliseconds.
pub const BOOT_MS: u64 = 3000;
/// What it uses until then, bytes.
const BOOT_BYTES: u64 = 48 << 20;
/// Until a guest that was killed runs again, milliseconds: somebody notices, starts it, and its programs start.
const RESTART_MS: u64 = 10_000;

/// How a guest does what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// At once.
    Ideal,
    /// At once as well, but it sends no statistics.
    WithoutStatistics,
    /// It takes long.
    Slow,
    /// Not at all, for a while.
    Stuck,
    /// It says it did, and did not.
    Lying,
    /// Now and then it neither sends statistics nor does anything.
    Intermittent,
}

/// What the programs in a guest want from a time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// When, milliseconds.
    pub at_ms: u64,
    /// Memory that they use, bytes.
    pub used_bytes: u64,
    /// Files that they read again and again, bytes.
    pub files_bytes: u64,
}

/// A guest.
#[derive(Debug, Clone)]
pub struct SimGuest {
    /// How it behaves.
    pub kind: Kind,
    /// What it wants, by time.
    pub phases: Vec<Phase>,
    /// When it does nothing at all, from and to, milliseconds.
    pub absences: Vec<(u64, u64)>,
    /// It comes back from those only if it is asked again.
    pub needs_asking: bool,
    /// Its statistics stop at this time, milliseconds.
    pub silent_from_ms: u64,
    /// Memory that its programs stall for and that its statistics do not show as used, bytes.
    pub hidden_bytes: u64,
    /// A limit inside it makes its programs stall.
    pub own_limit: bool,
    /// Its kernel takes memory back from the balloon when it has none.
    pub deflates: bool,
    /// It counts stalls (Linux 6.12).
    pub counts: bool,
    /// Its use goes up and down by this part of it, in 1/1024.
    pub noise: u64,
    /// RAM less the balloon, in truth.
    pub actual_bytes: u64,
    /// What its programs use and what they would.
    pub used_bytes: u64,
    /// What they would.
    pub wish: Phase,
    /// Its page cache.
    pub cache_bytes: u64,
    /// Milliseconds for which it had less than it needs to run.
    pub starved_ms: u64,
    /// How often the host's kernel killed it.
    pub kills: u64,
    booted_at_ms: u64,
    short_ms: u64,
    phase: usize,
    absence: usize,
    oom_at_ms: Option<u64>,
    asleep: bool,
}

impl SimGuest {
    /// A guest with RAM that it does not use yet.
    #[must_use]
    pub fn new(kind: Kind, ram_bytes: u64, phases: Vec<Phase>) -> Self {
        Self {
            kind,
            phases,
            absences: vec![],
            needs_asking: false,
            silent_from_ms: u64::MAX,
            hidden_bytes: 0,
            own_limit: false,
            deflates: true,
            counts: true,
            noise: 0,
            actual_bytes: ram_bytes,
            used_bytes: 0,
            wish: Phase { at_ms: 0, used_bytes: 0, files_bytes: 0 },
            cache_bytes: 0,
            starved_ms: 0,
            kills: 0,
            booted_at_ms: 0,
            short_ms: 0,
            phase: 0,
            absence: 0,
            oom_at_ms: None,
            asleep: false,
        }
    }

    /// The host's kernel kills it: all of its memory is free, whoever looks after it starts it again, and what it was doing is lost.
    pub fn kill(&mut self, now_ms: u64, view: &mut GuestView) {
        self.kills += 1;
        self.booted_at_ms = now_ms + RESTART_MS;
        (self.actual_bytes, self.used_bytes, self.cache_bytes) = (view.ram_bytes, 0, 0);
        (self.short_ms, self.oom_at_ms, self.asleep) = (0, None, false);
        (view.usage_bytes, view.actual_bytes, view.driver_ready) = (0, view.ram_bytes, false);
        view.refaulted_bytes = 0;
        (view.statistics, view.out_of_memory, view.memory) = (None, OutOfMemory::No, Default::default());
    }

    fn starve(&mut self, passed_ms: u64) {
        self.starved_ms += passed_ms;
    }

    /// True if it had less than it needs to run in the last turn.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.short_ms > 0
    }

    /// True from when it runs again after it was killed.
    #[must_use]
    pub fn is_up(&self, now_ms: u64) -> bool {
        now_ms >= self.booted_at_ms
    }

    /// The least that it has to have for its programs to run, bytes.
    #[must_use]
    pub fn least_bytes(&self) -> u64 {
        self.wish.used_bytes + self.hidden_bytes + FREE_BYTES_MIN
    }

    /// True if it does nothing at this time.
    fn is_absent(&mut self, now_ms: u64, asked_again: bool) -> bool {
        while self.absences.get(self.absence).is_some_and(|(_, to)| *to <= now_ms) {
            self.absence += 1;
        }
        let absent = self.absences.get(self.absence).is_some_and(|(from, _)| *from <= now_ms);
        self.asleep = absent || self.asleep && self.needs_asking && !asked_again;
        self.asleep
    }

    /// Lets some time pass, with what it is asked for, and writes what can be seen of it then. True if its demand changed.
    pub fn pass(
        &mut self,
        now_ms: u64,
        passed_ms: u64,
        target_bytes: u64,
        asked_again: bool,
        view: &mut GuestView,
    ) -> bool {
        let within = |bytes_per_s: u64| bytes_per_s * passed_ms / 1000;
        let mut changed = false;
        while let Some(phase) = self.phases.get(self.phase).filter(|phase| phase.at_ms <= now_ms) {
            (self.wish, changed) = (*phase, true);
            self.phase += 1;
        }
        let absent = self.is_absent(now_ms, asked_again);
        if !self.is_up(now_ms) {
            self.short_ms += passed_ms;
            self.starve(passed_ms);
            return changed;
        }
        view.driver_ready = now_ms > self.booted_at_ms + BOOT_MS;
        if !view.driver_ready {
            // Its kernel boots; programs come later.
            self.used_bytes = self.wish.used_bytes.min(BOOT_BYTES);
            view.usage_bytes = self.used_bytes;
            if self.kills > 0 {
                self.short_ms += passed_ms;
                self.starve(passed_ms);
            }
            return changed;
        }
        let balloon_works = !absent;
        let least = self.least_bytes();
        // What its balloon does. A liar's takes nothing from it.
        let target = if self.kind == Kind::Lying { view.ram_bytes } else { target_bytes };
        if balloon_works && self.actual_bytes < target {
            self.actual_bytes = target.min(self.actual_bytes + within(4 * FAST_BYTES_PER_S));
        } else if balloon_works && self.short_ms == 0 {
            let rate = if self.kind == Kind::Slow { SLOW_BYTES_PER_S } else { FAST_BYTES_PER_S };
            let to = target
                .max(self.used_bytes + FREE_BYTES_MIN)
                .max(self.actual_bytes.saturating_sub(within(rate)));
            self.actual_bytes = self.actual_bytes.min(to);
        }
        // What its programs get.
        let counters = view.statistics.map(|statistics| statistics.counters);
        let mut counters = counters.unwrap_or_default();
        if least > self.actual_bytes {
            self.used_bytes = self.actual_bytes.saturating_sub(FREE_BYTES_MIN).min(self.wish.used_bytes);
            self.cache_bytes = 0;
            self.short_ms += passed_ms;
            self.starve(passed_ms);
            if self.counts {
                counters.alloc_stalls += 100;
                counters.direct_scans += 100_000;
                counters.direct_reclaims += 100;
            } else {
                counters.major_faults += 2000;
            }
            if self.short_ms >= OOM_AFTER_MS && self.deflates && balloon_works {
                self.actual_bytes = least.min(view.ram_bytes);
                self.used_bytes = self.actual_bytes.saturating_sub(FREE_BYTES_MIN);
                self.oom_at_ms = Some(now_ms);
            }
        } else {
            self.short_ms = 0;
            self.used_bytes = self.wish.used_bytes;
            let room = self.actual_bytes - least;
            self.cache_bytes =
                self.wish.files_bytes.min(room).min(self.cache_bytes + within(READ_BYTES_PER_S));
        }
        if self.own_limit {
            counters.alloc_stalls += 100;
            counters.direct_scans += 100;
        }
        // What can be seen.
        view.usage_bytes = self.used_bytes + self.cache_bytes;
        view.actual_bytes =
            if self.kind == Kind::Lying && view.driver_ready { target_bytes } else { self.actual_bytes };
        if self.kind == Kind::Lying {
            // What its balloon holds and its programs use.
            view.refaulted_bytes = view.refaulted_bytes.max(view.usage_bytes.saturating_sub(target_bytes));
        }
        match self.oom_at_ms {
            Some(at) if now_ms - at < OOM_HOLD_MS => {
                view.out_of_memory = OutOfMemory::Holding { actual_bytes: self.actual_bytes };
            }
            Some(_) => {
                view.out_of_memory = OutOfMemory::Returning { actual_bytes: self.actual_bytes };
                self.oom_at_ms = None;
            }
            None if matches!(view.out_of_memory, OutOfMemory::Returning { .. }) => {
                // As the engine does: its share is above what it was kept at.
                view.out_of_memory = match target_bytes > view.raised_floor_bytes() {
                    true => OutOfMemory::No,
                    false => OutOfMemory::Returning { actual_bytes: self.actual_bytes },
                };
            }
            None => {}
        }
        if self.kind == Kind::WithoutStatistics || !view.driver_ready {
            return changed;
        }
        if absent && self.kind == Kind::Intermittent || now_ms >= self.silent_from_ms {
            if let Some(statistics) = &mut view.statistics {
                statistics.age_ms += passed_ms;
            }
            return changed;
        }
        let noise = self.used_bytes / 1024 * (self.noise * (now_ms / passed_ms.max(1) % 4)) / 3;
        // A liar says that it uses next to nothing.
        let part = if self.kind == Kind::Lying { 8 } else { 1 };
        let used_bytes = (self.used_bytes + noise) / part;
        let sequence = view.statistics.map_or(1, |statistics| statistics.sequence + 1);
        let available_bytes = self.actual_bytes.saturating_sub(used_bytes);
        view.statistics = Some(GuestStatistics {
            age_ms: 0,
            sequence,
            used_bytes,
            available_bytes,
            cache_bytes: self.cache_bytes,
            working_set_bytes: None,
            counters,
        });
        changed
    }
}
