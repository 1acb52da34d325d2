//! The same hosts under this policy and under others' rules.

use super::generate::generate;
use super::governor::{Ballast, Governor};
use super::rivals::{Mom, Proxmox};
use super::world::World;
use crate::policy::needed_bytes;

const INTERVAL_MS: u64 = 1000;
/// Hosts of a comparison, each of its own seed.
const HOSTS: u64 = 8;

/// What became of hosts under a governor.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    ticks: u64,
    guest_ticks: u64,
    /// Ticks with less than a quarter of the reserve left.
    pressure: u64,
    /// Ticks with nothing left.
    host_oom: u64,
    /// MiB by which guests were asked to hold less than they did while more than the reserve was available.
    needless_mib: u64,
    /// Guest-seconds with less than programs use.
    starved_s: u64,
    /// Guests that starved for ten seconds or more.
    starved_guests: u64,
    /// Sums for Jain's index of how much of its need each guest had while needs were not met.
    met_sum: f64,
    met_squares: f64,
    met_count: f64,
}

fn play(governor: &mut dyn Governor, seed: u64, guests: usize, length_ms: u64, score: &mut Score) {
    let mut world = generate(seed, guests, length_ms, INTERVAL_MS);
    // The others know no limits of containers: weights alone are the same for all.
    for view in &mut world.observation.containers {
        view.limits = World::weight(view.limits.weight);
    }
    let mut targets: Vec<(u64, bool)> = vec![];
    while world.observation.now_ms < length_ms {
        world.pass(&targets);
        let before: Vec<u64> = targets.iter().map(|target| target.0).collect();
        governor.turn(&mut world.observation, &mut targets);
        let observation = &world.observation;
        let Some(host) = observation.host else { continue };
        let reserve = observation.knobs.reserve_of(host.total_bytes);
        score.ticks += 1;
        score.guest_ticks += guests as u64;
        score.pressure += u64::from(host.available_bytes < reserve / 4);
        for (i, view) in observation.guests.iter().enumerate() {
            let last = before.get(i).copied().unwrap_or(view.ram_bytes);
            if targets[i].0 < last && host.available_bytes > reserve * 2 {
                score.needless_mib += view.usage_bytes.min(last).saturating_sub(targets[i].0) >> 20;
            }
            let guest = &world.guests[i];
            let need = needed_bytes(guest.wish.used_bytes).min(view.ram_bytes);
            let met = guest.actual_bytes.min(need) as f64 / need.max(1) as f64;
            score.met_sum += met;
            score.met_squares += met * met;
            score.met_count += 1.0;
        }
    }
    score.host_oom += world.host_oom_ticks;
    for guest in &world.guests {
        score.starved_s += guest.starved_ms / 1000;
        score.starved_guests += u64::from(guest.starved_ms >= 10_000);
    }
}

/// The policy, with a memory of its own.
#[derive(Debug, Default)]
struct Remembering(Ballast);

impl Governor for Remembering {
    fn turn(&mut self, observation: &mut crate::policy::Observation, targets: &mut Vec<(u64, bool)>) {
        self.0.turn(observation, targets);
        self.0.remember(observation);
    }
}

/// A figure of a score, as text.
type Figure<'a> = &'a dyn Fn(&Score) -> String;

/// A table in Markdown: the same hosts of a seed, so many guests each, for so long.
#[must_use]
pub fn versus(seed: u64, guests: usize, length_ms: u64) -> String {
    let mut scores = [Score::default(); 3];
    for host in 0..HOSTS {
        let governors: [Box<dyn Governor>; 3] =
            [Box::new(Remembering::default()), Box::new(Proxmox), Box::new(Mom)];
        for (mut governor, score) in governors.into_iter().zip(&mut scores) {
            play(governor.as_mut(), seed.wrapping_add(host), guests, length_ms, score);
        }
    }
    let percent = |part: u64, of: u64| format!("{:.2} %", part as f64 * 100.0 / of.max(1) as f64);
    let rows: [(&str, Figure<'_>); 6] = [
        ("time under pressure: less than a quarter of the reserve is left", &|s| {
            percent(s.pressure, s.ticks)
        }),
        ("the host has nothing left", &|s| percent(s.host_oom, s.ticks)),
        ("needless reclaim, GiB per guest and hour", &|s| {
            format!("{:.2}", s.needless_mib as f64 / 1024.0 * 3600.0 / s.guest_ticks.max(1) as f64)
        }),
        ("guests starved for 10 s or more", &|s| percent(s.starved_guests, HOSTS * guests as u64)),
        ("time in which a guest starves", &|s| percent(s.starved_s, s.guest_ticks)),
        ("fairness: Jain's index of how much of its need each has", &|s| {
            format!("{:.4}", s.met_sum * s.met_sum / (s.met_squares * s.met_count).max(1.0))
        }),
    ];
    let mut text = format!(
        "Seed {seed}, {HOSTS} hosts, {guests} guests each, {} min of simulated time.\n\n| | Ballast | Proxmox VE's rules | oVirt MoM's rules |\n|---|---|---|---|\n",
        length_ms / 60_000
    );
    for (name, of) in rows {
        let [a, b, c] = scores.each_ref().map(of);
        text += &format!("| {name} | {a} | {b} | {c} |\n");
    }
    text
}
