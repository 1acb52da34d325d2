//! One run of a simulation.

use super::check::{Checker, Violation};
use super::generate::generate;
use super::governor::{Ballast, Governor, Target};
use super::world::World;
use policy::Rules;
use serde::Serialize;

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The seed of the host.
    pub seed: u64,
    /// Guests.
    pub guests: usize,
    /// Simulated time, milliseconds.
    pub length_ms: u64,
    /// Time between two ticks, milliseconds.
    pub interval_ms: u64,
}

/// The result of a run. The same settings give the same result, to the byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Guests.
    pub guests: usize,
    /// Simulated time, milliseconds.
    pub length_ms: u64,
    /// Time between two ticks, milliseconds.
    pub interval_ms: u64,
    /// Figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// How often something that must hold did not.
    pub violations: u64,
    /// The first few violations.
    pub first_violations: Vec<Violation>,
}

/// What happened in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Ticks.
    pub ticks: u64,
    /// Ticks at which nothing moved any more, and the checks for that were made.
    pub ticks_at_rest: u64,
    /// Ticks in which the host had nothing left.
    pub host_oom_ticks: u64,
    /// Targets that changed.
    pub targets_changed: u64,
    /// Bytes by which targets were lowered, MiB.
    pub reclaimed_mib: u64,
    /// Time in which guests had less than their programs use, guest-seconds.
    pub starved_s: u64,
    /// Guests that were marked as stuck, slow, lying or vanished, by tick.
    pub marked_guest_ticks: u64,
    /// A checksum over all targets of all ticks: two runs with the same one had the same targets.
    pub fingerprint: u64,
}

/// Simulates a host under the policy and checks every tick.
#[must_use]
pub fn simulate(settings: &Settings) -> Outcome {
    let mut world = generate(settings.seed, settings.guests, settings.length_ms, settings.interval_ms);
    let (figures, checker) = run(&mut world, settings.length_ms, Rules::default());
    Outcome {
        seed: settings.seed,
        guests: settings.guests,
        length_ms: settings.length_ms,
        interval_ms: settings.interval_ms,
        figures,
        violations: checker.count,
        first_violations: checker.violations,
    }
}

/// Runs a world for some time under the policy with these rules.
pub(super) fn run(world: &mut World, length_ms: u64, rules: Rules) -> (Figures, Checker) {
    let mut governor = Ballast { rules, ..Default::default() };
    let (mut figures, mut checker) = (Figures::default(), Checker::default());
    // Targets of an earlier run still hold.
    let asked = |view: &policy::GuestView| Target::of(view.memory.target_bytes.unwrap_or(view.ram_bytes));
    let mut targets: Vec<Target> = world.observation.guests.iter().map(asked).collect();
    let end = world.observation.now_ms + length_ms;
    while world.observation.now_ms < end {
        world.pass(&targets);
        governor.tick(&mut world.observation, &mut targets);
        checker.check(world, &governor.plan);
        for (view, target) in world.observation.guests.iter().zip(&governor.plan.targets) {
            let last = view.memory.target_bytes.unwrap_or(target.target_bytes);
            figures.targets_changed += u64::from(last != target.target_bytes);
            figures.reclaimed_mib += last.saturating_sub(target.target_bytes) >> 20;
            figures.marked_guest_ticks += u64::from(target.memory.health != policy::Health::Well);
            figures.fingerprint = figures.fingerprint.rotate_left(1) ^ target.target_bytes;
        }
        governor.remember(&mut world.observation);
        figures.ticks += 1;
    }
    figures.ticks_at_rest = checker.at_rest;
    figures.host_oom_ticks = world.host_oom_ticks;
    figures.starved_s = world.guests.iter().map(|guest| guest.starved_ms).sum::<u64>() / 1000;
    (figures, checker)
}
