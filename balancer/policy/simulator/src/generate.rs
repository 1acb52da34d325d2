//! Hosts that are generated from a seed.

use super::guest::{Kind, Phase, SimGuest};
use super::world::World;
use protocol::limits::Limits;

const MIB: u64 = 1 << 20;
/// Demand changes in the first part of an epoch and is constant in the rest, so that the policy can come to rest.
const EPOCH_MS: u64 = 300_000;
const BUSY_MS: u64 = 180_000;

/// An overcommitted host with tenants, each with guests. Most guests are ideal, some are not.
#[must_use]
pub fn generate(seed: u64, guests: usize, length_ms: u64, interval_ms: u64) -> World {
    let mut random = fastrand::Rng::with_seed(seed);
    let sizes: Vec<u64> =
        (0..guests).map(|_| *random.choice(&[256, 512, 512, 1024, 2048, 4096]).unwrap_or(&512)).collect();
    let ram_mib: u64 = sizes.iter().sum();
    // The floors of all guests always fit; their RAM does not.
    let overcommit_percent = random.u64(110..=200);
    // Hosts on which more is needed than there is come to rest only if guests do not deflate by themselves.
    let tight = random.bool();
    let total = (ram_mib * 100 / overcommit_percent).max(guests as u64 * 120 + 1024) * MIB;
    let mut world = World::new(total);
    world.observation.knobs.interval_ms = interval_ms;
    let budget = total - world.observation.knobs.reserve_of(total);
    let others = total / 100 * random.u64(0..=5);
    world.others = vec![(0, others)];
    for epoch in 0..length_ms / EPOCH_MS {
        if random.u8(0..4) == 0 {
            let at = epoch * EPOCH_MS + random.u64(10_000..BUSY_MS);
            world.others.push((at, total / 100 * random.u64(0..=5)));
        }
    }
    let tenants: Vec<usize> = (0..guests.div_ceil(25).max(2))
        .map(|tenant| {
            let mut limits = World::weight(*random.choice(&[50, 100, 100, 200, 400]).unwrap_or(&100));
            // All protections together are less than half of the budget.
            let part = budget / guests.div_ceil(25).max(2) as u64 / 4;
            match random.u8(0..4) {
                0 => limits.min_bytes = random.u64(0..=part),
                1 => limits.low_bytes = random.u64(0..=part),
                2 => limits.max_bytes = Some(budget / 4 + random.u64(0..=budget / 2)),
                _ => {}
            }
            world.container(0, &format!("t{tenant}"), limits)
        })
        .collect();
    for (i, mib) in sizes.into_iter().enumerate() {
        let (guest, limits) = guest(&mut random, mib * MIB, length_ms, tight);
        world.guest(tenants[i % tenants.len()], limits, guest);
    }
    world
}

/// A guest and the limits of its container.
fn guest(random: &mut fastrand::Rng, ram: u64, length_ms: u64, tight: bool) -> (SimGuest, Limits) {
    let kind = match random.u8(0..100) {
        0..80 => Kind::Ideal,
        80..85 => Kind::WithoutStatistics,
        85..90 => Kind::Slow,
        90..93 => Kind::Stuck,
        93..95 => Kind::Lying,
        _ => Kind::Intermittent,
    };
    let mut guest = SimGuest::new(kind, ram, phases(random, ram, length_ms, tight));
    guest.counts = random.bool();
    guest.noise = random.u64(0..=6);
    guest.deflates = !tight;
    guest.needs_asking = random.bool();
    guest.absences = match kind {
        // From some time on, for some epochs.
        Kind::Stuck => {
            let from = random.u64(20_000..BUSY_MS);
            vec![(from, from + random.u64(1..=4) * EPOCH_MS)]
        }
        Kind::Intermittent => absences(random, length_ms),
        _ => vec![],
    };
    let mut limits = World::weight(*random.choice(&[25, 50, 100, 100, 100, 200, 1000]).unwrap_or(&100));
    match random.u8(0..8) {
        0 => limits.min_bytes = ram / 8,
        1 => limits.low_bytes = ram / 4,
        2 => limits.max_bytes = Some(ram / 2 + 160 * MIB),
        3 => limits.high_bytes = Some(ram / 4 * 3 + 160 * MIB),
        _ => {}
    }
    if limits == Limits::default() {
        limits = World::plain();
    }
    (guest, limits)
}

/// Idle, busy, reading files; never more than the RAM of a guest, but at times more than all guests have together.
fn phases(random: &mut fastrand::Rng, ram: u64, length_ms: u64, tight: bool) -> Vec<Phase> {
    let mut phases = vec![];
    let phase = |at_ms, used: u64, files: u64| Phase {
        at_ms,
        used_bytes: (ram / 100 * used).max(24 * MIB),
        files_bytes: ram / 100 * files,
    };
    for epoch in 0..=length_ms / EPOCH_MS {
        let from = epoch * EPOCH_MS;
        let mut at_ms = from + random.u64(0..30_000);
        while at_ms < from + BUSY_MS {
            phases.push(match random.u8(0..10) {
                0..5 => phase(at_ms, random.u64(5..20), random.u64(0..20)),
                5..7 => phase(at_ms, random.u64(20..50), random.u64(0..30)),
                7..9 => phase(at_ms, random.u64(50..80), random.u64(0..10)),
                _ => phase(at_ms, random.u64(10..30), random.u64(40..100)),
            });
            at_ms += random.u64(20_000..120_000);
        }
        phases.push(match tight && epoch % 2 == 1 {
            true => phase(from + BUSY_MS, random.u64(50..80), random.u64(0..10)),
            false => phase(from + BUSY_MS, random.u64(5..30), random.u64(0..20)),
        });
    }
    phases
}

/// Times in which a guest does nothing. They end before the quiet part of an epoch.
fn absences(random: &mut fastrand::Rng, length_ms: u64) -> Vec<(u64, u64)> {
    let mut absences = vec![];
    for epoch in 0..=length_ms / EPOCH_MS {
        let mut at = epoch * EPOCH_MS + random.u64(10_000..60_000);
        while at + 30_000 < epoch * EPOCH_MS + BUSY_MS {
            let to = at + random.u64(2_000..25_000);
            absences.push((at, to));
            at = to + random.u64(10_000..60_000);
        }
    }
    absences
}
