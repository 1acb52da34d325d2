//! Plays a trace through a system: what it charged to which container, compared with the truth.

use super::host::{Host, Step};
use super::trace::{CONTAINERS_MAX, Trace};
use super::truth::{FrameMs, Truth, WINDOW_MS};
use accounting::{Accounting, ContainerId, POOL, UNITS_PER_FRAME};
use serde::Serialize;
use std::collections::BTreeMap;

/// The steps of a trace that the systems receive, with their times.
#[must_use]
pub fn steps(trace: &Trace) -> Vec<(u64, Step)> {
    let mut host = Host::default();
    let mut steps = Vec::new();
    for timed in &trace.events {
        let received = host.apply(&timed.event).expect("the trace was played before");
        steps.extend(received.into_iter().map(|step| (timed.at_ms, step)));
    }
    steps
}

/// What a system charged over a trace.
#[derive(Debug, Default)]
pub struct Charged {
    /// Frame-milliseconds by window and container, the pool among them.
    pub windows: Vec<FrameMs>,
    /// Frame-milliseconds that were charged without a resident frame.
    pub fragmentation_frame_ms: f64,
    /// Highest enforceable charge of each container, frames.
    pub peak_frames: BTreeMap<ContainerId, f64>,
    /// For each container of `limits`: time for which its enforceable charge was above its limit, milliseconds.
    pub over_limit_ms: BTreeMap<ContainerId, u64>,
}

/// Plays steps through a system.
pub fn play(
    system: &mut dyn Accounting,
    steps: &[(u64, Step)],
    length_ms: u64,
    limits: &BTreeMap<ContainerId, u64>,
) -> Charged {
    let mut charged = Charged::default();
    let mut steps = steps.iter().peekable();
    let mut now_ms = 0;
    while now_ms < length_ms {
        system.advance(now_ms);
        while let Some((_, step)) = steps.next_if(|(at_ms, _)| *at_ms <= now_ms) {
            step.apply(system);
        }
        // Charges are constant until the next step; a grace changes slowly, so it is read ten times a second.
        let mut next_ms = length_ms.min((now_ms / 100 + 1) * 100);
        if let Some((at_ms, _)) = steps.peek() {
            next_ms = next_ms.min(*at_ms);
        }
        charged.add(system, now_ms, next_ms, limits);
        now_ms = next_ms;
    }
    charged
}

impl Charged {
    fn add(
        &mut self,
        system: &dyn Accounting,
        from_ms: u64,
        to_ms: u64,
        limits: &BTreeMap<ContainerId, u64>,
    ) {
        let window = usize::try_from(from_ms / WINDOW_MS).expect("bounded by LENGTH_MS_MAX");
        if window >= self.windows.len() {
            self.windows.resize(window + 1, FrameMs::new());
        }
        let ms = (to_ms - from_ms) as f64;
        for container in (0..=CONTAINERS_MAX).map(ContainerId) {
            let units = system.charged(container);
            let enforceable = frames(system.enforceable(container));
            if units > 0 {
                *self.windows[window].entry(container).or_default() += frames(units) * ms;
                let peak = self.peak_frames.entry(container).or_default();
                *peak = peak.max(enforceable);
            }
            if limits.get(&container).is_some_and(|limit| enforceable > *limit as f64) {
                *self.over_limit_ms.entry(container).or_default() += to_ms - from_ms;
            }
        }
        self.fragmentation_frame_ms += frames(system.fragmentation()) * ms;
    }

    /// The total charge of a container, frame-milliseconds.
    #[must_use]
    pub fn total(&self, container: ContainerId) -> f64 {
        total(&self.windows, container)
    }
}

/// The sum of a container over all windows, frame-milliseconds.
#[must_use]
pub fn total(windows: &[FrameMs], container: ContainerId) -> f64 {
    // An empty sum of floats is -0.
    windows.iter().filter_map(|window| window.get(&container)).fold(0.0, |sum, ms| sum + ms)
}

fn frames(units: u64) -> f64 {
    units as f64 / UNITS_PER_FRAME as f64
}

/// A system's charges against the truth, percent of all resident byte-seconds. Windows are compared one by one: too
/// much in one does not make up for too little in the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Charged to containers above their part.
    pub overcharged_pct: f64,
    /// Missing from the charges of containers.
    pub undercharged_pct: f64,
    /// Charged to the pool.
    pub pool_pct: f64,
    /// Charged without a resident frame.
    pub fragmentation_pct: f64,
    /// All charges.
    pub charged_pct: f64,
}

impl Difference {
    /// Compares.
    #[must_use]
    pub fn of(charged: &Charged, truth: &Truth) -> Self {
        let (mut over, mut under, mut pool, mut all, mut resident) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let nothing = FrameMs::new();
        for window in 0..charged.windows.len().max(truth.windows.len()) {
            let found = charged.windows.get(window).unwrap_or(&nothing);
            let right = truth.windows.get(window).unwrap_or(&nothing);
            resident += right.values().sum::<f64>();
            all += found.values().sum::<f64>();
            pool += found.get(&POOL).copied().unwrap_or(0.0);
            for container in (1..=CONTAINERS_MAX).map(ContainerId) {
                let of = |map: &FrameMs| map.get(&container).copied().unwrap_or(0.0);
                let error = of(found) - of(right);
                over += error.max(0.0);
                under += (-error).max(0.0);
            }
        }
        let percent = |part: f64| if resident > 0.0 { round(100.0 * part / resident) } else { 0.0 };
        Self {
            overcharged_pct: percent(over),
            undercharged_pct: percent(under),
            pool_pct: percent(pool),
            fragmentation_pct: percent(charged.fragmentation_frame_ms),
            charged_pct: percent(all),
        }
    }
}

/// Rounds to hundredths: more digits mean nothing.
#[must_use]
pub fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
