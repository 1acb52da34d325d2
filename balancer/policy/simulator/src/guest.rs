//! A simulated guest: figures instead of a machine.
//!
//! ```text
//!   target --> balloon --> programs (use, stall, deflate) --> what the host and its statistics show
//! ```

use super::governor::Target;
use policy::{Counters, GuestStatistics, GuestView, OutOfMemory};
use serde::{Deserialize, Serialize};

/// What a kernel keeps free, bytes.
const FREE_BYTES_MIN: u64 = 16 << 20;
/// How fast a guest fills its page cache, bytes per second.
const READ_BYTES_PER_S: u64 = 1 << 30;
/// How fast a balloon that works inflates, and how fast a slow one does; bytes per second. It deflates four times as
/// fast.
const FAST_BYTES_PER_S: u64 = 2 << 30;
const SLOW_BYTES_PER_S: u64 = 24 << 20;
/// A guest stalls for this long before its kernel deflates the balloon, milliseconds.
const OOM_AFTER_MS: u64 = 3000;
/// A guest that deflated keeps what it holds for this long, milliseconds.
const OOM_HOLD_MS: u64 = 30_000;

/// Until a driver serves the balloon, milliseconds.
pub const BOOT_MS: u64 = 3000;
/// What it uses until then, bytes.
const BOOT_BYTES: u64 = 48 << 20;
/// Until a guest that was killed runs again, milliseconds: its end is noticed, it is started, and so are its
/// programs.
const RESTART_MS: u64 = 10_000;

/// How a guest does what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// At once.
    Ideal,
    /// At once, but it does not send statistics.
    WithoutStatistics,
    /// Slowly.
    Slow,
    /// Not at all, for a while.
    Stuck,
    /// It reports that it did, and did not.
    Lying,
    /// Now and then it does not send statistics and does nothing.
    Intermittent,
}

/// What the programs in a guest ask for from a time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Start, milliseconds.
    pub at_ms: u64,
    /// Memory that they use, bytes.
    pub used_bytes: u64,
    /// Files that they read again and again, bytes.
    pub files_bytes: u64,
}

/// A guest.
#[derive(Debug, Clone)]
pub struct SimGuest {
    /// How it does what it is asked.
    pub kind: Kind,
    /// What its programs ask for, by time.
    pub phases: Vec<Phase>,
    /// When it does nothing, from and to, milliseconds.
    pub absences: Vec<(u64, u64)>,
    /// After such a time it does something only once it is asked again.
    pub needs_asking: bool,
    /// Its statistics stop at this time, milliseconds.
    pub silent_from_ms: u64,
    /// Memory that its programs stall for and that its statistics do not show as used, bytes.
    pub hidden_bytes: u64,
    /// A limit inside it makes its programs stall.
    pub own_limit: bool,
    /// Its kernel deflates the balloon when memory runs out.
    pub deflates: bool,
    /// It counts stalls (Linux 6.12).
    pub counts: bool,
    /// What it uses goes up and down by this part, in 1/1024.
    pub noise: u64,
    /// RAM less what its balloon really holds, bytes.
    pub actual_bytes: u64,
    /// What its programs use, bytes.
    pub used_bytes: u64,
    /// What its programs ask for.
    pub wish: Phase,
    /// Its page cache, bytes.
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

/// A step of time.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The time after it, milliseconds.
    pub now_ms: u64,
    /// Its length, milliseconds.
    pub passed_ms: u64,
}

impl Step {
    fn bytes(self, bytes_per_s: u64) -> u64 {
        bytes_per_s * self.passed_ms / 1000
    }
}

impl SimGuest {
    /// A guest with this much RAM, which it does not use yet.
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

    /// The host's kernel kills it: all of its memory is free, its operator starts it again, and its work is lost.
    pub fn kill(&mut self, now_ms: u64, view: &mut GuestView) {
        self.kills += 1;
        self.booted_at_ms = now_ms + RESTART_MS;
        (self.actual_bytes, self.used_bytes, self.cache_bytes) = (view.ram_bytes, 0, 0);
        (self.short_ms, self.oom_at_ms, self.asleep) = (0, None, false);
        (view.usage_bytes, view.actual_bytes, view.driver_ready) = (0, view.ram_bytes, false);
        view.refaulted_bytes = 0;
        (view.statistics, view.out_of_memory, view.memory) = (None, OutOfMemory::No, Default::default());
    }

    /// True if it had less than it needs to run in the last tick.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.short_ms > 0
    }

    /// False after it was killed, until it runs again.
    #[must_use]
    pub fn is_up(&self, now_ms: u64) -> bool {
        now_ms >= self.booted_at_ms
    }

    /// What its programs need at least to run, bytes.
    #[must_use]
    pub fn least_bytes(&self) -> u64 {
        self.wish.used_bytes + self.hidden_bytes + FREE_BYTES_MIN
    }

    /// Lets some time pass under a target, and writes into `view` what can be seen of the guest then. True if its
    /// demand changed.
    pub fn pass(&mut self, step: Step, target: Target, view: &mut GuestView) -> bool {
        let changed = self.enter_phases(step.now_ms);
        let absent = self.is_absent(step.now_ms, target.again);
        if !self.is_up(step.now_ms) {
            self.run_short(step);
            return changed;
        }
        view.driver_ready = step.now_ms > self.booted_at_ms + BOOT_MS;
        if !view.driver_ready {
            // Its kernel boots; programs come later.
            self.used_bytes = self.wish.used_bytes.min(BOOT_BYTES);
            view.usage_bytes = self.used_bytes;
            if self.kills > 0 {
                self.run_short(step);
            }
            return changed;
        }
        if !absent {
            self.move_balloon(step, target.bytes, view.ram_bytes);
        }
        let counters = view.statistics.map(|statistics| statistics.counters).unwrap_or_default();
        let counters = self.run_programs(step, absent, view.ram_bytes, counters);
        self.show_use(target.bytes, view);
        self.show_out_of_memory(step.now_ms, target.bytes, view);
        if self.kind == Kind::WithoutStatistics {
            return changed;
        }
        if absent && self.kind == Kind::Intermittent || step.now_ms >= self.silent_from_ms {
            if let Some(statistics) = &mut view.statistics {
                statistics.age_ms += step.passed_ms;
            }
        } else {
            self.show_statistics(step, counters, view);
        }
        changed
    }

    /// Enters the phases that are due. True if there are any.
    fn enter_phases(&mut self, now_ms: u64) -> bool {
        let mut changed = false;
        while let Some(phase) = self.phases.get(self.phase).filter(|phase| phase.at_ms <= now_ms) {
            (self.wish, changed) = (*phase, true);
            self.phase += 1;
        }
        changed
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

    /// It has less than it needs to run, or does not run at all.
    fn run_short(&mut self, step: Step) {
        self.short_ms += step.passed_ms;
        self.starved_ms += step.passed_ms;
    }

    /// Inflates or deflates the balloon towards a target. A guest that lies does not inflate.
    fn move_balloon(&mut self, step: Step, target_bytes: u64, ram_bytes: u64) {
        let target = if self.kind == Kind::Lying { ram_bytes } else { target_bytes };
        if self.actual_bytes < target {
            self.actual_bytes = target.min(self.actual_bytes + step.bytes(4 * FAST_BYTES_PER_S));
        } else if self.short_ms == 0 {
            let rate = if self.kind == Kind::Slow { SLOW_BYTES_PER_S } else { FAST_BYTES_PER_S };
            let to = target
                .max(self.used_bytes + FREE_BYTES_MIN)
                .max(self.actual_bytes.saturating_sub(step.bytes(rate)));
            self.actual_bytes = self.actual_bytes.min(to);
        }
    }

    /// Its programs use memory, or stall for it. Returns the counters of its statistics after that.
    fn run_programs(&mut self, step: Step, absent: bool, ram_bytes: u64, mut counters: Counters) -> Counters {
        let least = self.least_bytes();
        if least > self.actual_bytes {
            self.used_bytes = self.actual_bytes.saturating_sub(FREE_BYTES_MIN).min(self.wish.used_bytes);
            self.cache_bytes = 0;
            self.run_short(step);
            if self.counts {
                counters.alloc_stalls += 100;
                counters.direct_scans += 100_000;
                counters.direct_reclaims += 100;
            } else {
                counters.major_faults += 2000;
            }
            if self.short_ms >= OOM_AFTER_MS && self.deflates && !absent {
                self.actual_bytes = least.min(ram_bytes);
                self.used_bytes = self.actual_bytes.saturating_sub(FREE_BYTES_MIN);
                self.oom_at_ms = Some(step.now_ms);
            }
        } else {
            self.short_ms = 0;
            self.used_bytes = self.wish.used_bytes;
            let room = self.actual_bytes - least;
            self.cache_bytes =
                self.wish.files_bytes.min(room).min(self.cache_bytes + step.bytes(READ_BYTES_PER_S));
        }
        if self.own_limit {
            counters.alloc_stalls += 100;
            counters.direct_scans += 100;
        }
        counters
    }

    /// What the host sees of its memory.
    fn show_use(&self, target_bytes: u64, view: &mut GuestView) {
        view.usage_bytes = self.used_bytes + self.cache_bytes;
        view.actual_bytes = self.actual_bytes;
        if self.kind == Kind::Lying {
            view.actual_bytes = target_bytes;
            // Its programs use frames that it reported as inflated.
            view.refaulted_bytes = view.refaulted_bytes.max(view.usage_bytes.saturating_sub(target_bytes));
        }
    }

    /// Whether it ran out of memory, as the balancer keeps track of it.
    fn show_out_of_memory(&mut self, now_ms: u64, target_bytes: u64, view: &mut GuestView) {
        let actual_bytes = self.actual_bytes;
        match self.oom_at_ms {
            Some(at) if now_ms - at < OOM_HOLD_MS => {
                view.out_of_memory = OutOfMemory::Holding { actual_bytes };
            }
            Some(_) => {
                view.out_of_memory = OutOfMemory::Returning { actual_bytes };
                self.oom_at_ms = None;
            }
            None if matches!(view.out_of_memory, OutOfMemory::Returning { .. }) => {
                // It is over once its share is above what it was kept at.
                view.out_of_memory = match target_bytes > view.raised_floor_bytes() {
                    true => OutOfMemory::No,
                    false => OutOfMemory::Returning { actual_bytes },
                };
            }
            None => {}
        }
    }

    /// Its next sample of statistics.
    fn show_statistics(&self, step: Step, counters: Counters, view: &mut GuestView) {
        let wave = step.now_ms / step.passed_ms.max(1) % 4;
        let noise = self.used_bytes / 1024 * (self.noise * wave) / 3;
        // A guest that lies reports that it uses next to nothing.
        let part = if self.kind == Kind::Lying { 8 } else { 1 };
        let used_bytes = (self.used_bytes + noise) / part;
        view.statistics = Some(GuestStatistics {
            age_ms: 0,
            sequence: view.statistics.map_or(1, |statistics| statistics.sequence + 1),
            used_bytes,
            available_bytes: self.actual_bytes.saturating_sub(used_bytes),
            cache_bytes: self.cache_bytes,
            working_set_bytes: None,
            counters,
        });
    }
}
