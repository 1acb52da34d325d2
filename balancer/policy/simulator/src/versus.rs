//! The same hosts under this policy and under the rules of rivals.

use super::governor::{Ballast, Governor, Target};
use super::rivals::{Mom, Proxmox};
use super::score::Score;
use policy::{INTERVAL_MS, Observation};

/// Hosts of a comparison, each with its own seed.
const HOSTS: u64 = 8;

/// The policy, with what it remembers.
#[derive(Debug, Default)]
struct Remembering(Ballast);

impl Governor for Remembering {
    fn tick(&mut self, observation: &mut Observation, targets: &mut Vec<Target>) {
        self.0.tick(observation, targets);
        self.0.remember(observation);
    }
}

/// A figure of a score, as text.
type Figure<'a> = &'a dyn Fn(&Score) -> String;

/// A table in Markdown: the same hosts of a seed under each governor.
#[must_use]
pub fn versus(seed: u64, guests: usize, length_ms: u64) -> String {
    let mut scores = [Score::default(); 3];
    std::thread::scope(|scope| {
        for (which, score) in scores.iter_mut().enumerate() {
            scope.spawn(move || {
                for host in 0..HOSTS {
                    let mut governor: Box<dyn Governor> = match which {
                        0 => Box::new(Remembering::default()),
                        1 => Box::new(Proxmox),
                        _ => Box::new(Mom),
                    };
                    score.play(governor.as_mut(), seed.wrapping_add(host), guests, length_ms, INTERVAL_MS);
                }
            });
        }
    });
    let percent = |part: u64, of: u64| match of {
        0 => "-".to_owned(),
        of => format!("{:.2} %", part as f64 * 100.0 / of as f64),
    };
    let rows: [(&str, Figure<'_>); 9] = [
        ("guests killed because the host had nothing left", &|s| s.kills.to_string()),
        ("time under pressure: less than a quarter of the reserve is left", &|s| {
            percent(s.pressure, s.ticks)
        }),
        (
            "guests that starved for 10 s at a stretch while all needs fit into the host, or were killed",
            &|s| percent(s.starved_guests[0], s.guests),
        ),
        ("guests that starved for 10 s at any stretch, or were killed", &|s| {
            percent(s.starved_guests[1], s.guests)
        }),
        ("time in which a guest starves, while all needs fit into the host", &|s| {
            percent(s.starved[0], s.lived[0])
        }),
        ("time in which a guest starves, while needs do not fit into the host", &|s| {
            percent(s.starved[1], s.lived[1])
        }),
        ("time in which a guest starves with less than it was promised", &|s| {
            percent(s.broken, s.guest_ticks)
        }),
        ("needless reclaim, GiB per guest and hour", &|s| {
            format!("{:.2}", s.needless_mib as f64 / 1024.0 * 3600.0 / s.guest_ticks.max(1) as f64)
        }),
        ("fairness: Jain's index of the part of its need that each guest has", &|s| {
            format!("{:.4}", s.fairness())
        }),
    ];
    let minutes = length_ms / 60_000;
    let mut text =
        format!("Seed {seed}, {HOSTS} hosts, {guests} guests each, {minutes} min of simulated time.\n\n");
    text += "| | Ballast | Proxmox VE's rules | oVirt MoM's rules |\n|---|---|---|---|\n";
    for (name, of) in rows {
        let [a, b, c] = scores.each_ref().map(of);
        text += &format!("| {name} | {a} | {b} | {c} |\n");
    }
    text
}
