//! How hosts and guests fare under a governor.

use super::generate::generate;
use super::governor::{Governor, Target};
use super::world::World;
use policy::{Observation, needed_bytes};

/// A guest counts as starved if it starved for this long at a stretch, milliseconds.
pub const STARVED_MS: u64 = 10_000;
/// Each guest is promised this part of its RAM under every governor.
pub const PROMISED_PART: u64 = 8;

/// Sums over hosts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Score {
    pub guests: u64,
    pub ticks: u64,
    pub guest_ticks: u64,
    /// Ticks with less than a quarter of the reserve left.
    pub pressure: u64,
    /// How often the host's kernel killed a guest.
    pub kills: u64,
    /// Guest-ticks with less than programs need, while all needs fit into the host, and while they do not.
    pub starved: [u64; 2],
    /// All guest-ticks, divided in the same way.
    pub lived: [u64; 2],
    /// Guest-ticks in which a guest starved with less than it was promised.
    pub broken: u64,
    /// Guests that were killed, or starved for `STARVED_MS` at a stretch in which all needs fit into the host; and at
    /// any stretch.
    pub starved_guests: [u64; 2],
    /// MiB in use that guests were asked to release while more than twice the reserve was available.
    pub needless_mib: u64,
    /// Sums for Jain's index of how much of its need each guest had.
    met: [f64; 3],
}

impl Score {
    /// Plays the host of a seed under a governor and adds it up.
    pub fn play(
        &mut self,
        governor: &mut dyn Governor,
        seed: u64,
        guests: usize,
        length_ms: u64,
        interval_ms: u64,
    ) {
        let mut world = generate(seed, guests, length_ms, interval_ms);
        promise(&mut world);
        let mut targets: Vec<Target> = vec![];
        let mut before: Vec<u64> = vec![];
        let (mut stretches, mut longest) = (vec![[0; 2]; guests], vec![[0; 2]; guests]);
        while world.observation.now_ms < length_ms {
            world.pass(&targets);
            before.clear();
            before.extend(targets.iter().map(|target| target.bytes));
            governor.tick(&mut world.observation, &mut targets);
            self.count(&world, &before, &targets);
            let fits = world.fits();
            for ((guest, stretch), longest) in world.guests.iter().zip(&mut stretches).zip(&mut longest) {
                for (i, counts) in [fits, true].into_iter().enumerate() {
                    stretch[i] = if guest.is_starved() && counts { stretch[i] + interval_ms } else { 0 };
                    longest[i] = longest[i].max(stretch[i]);
                }
            }
        }
        self.guests += guests as u64;
        for (guest, longest) in world.guests.iter().zip(&longest) {
            self.kills += guest.kills;
            for (count, longest) in self.starved_guests.iter_mut().zip(longest) {
                *count += u64::from(*longest >= STARVED_MS || guest.kills > 0);
            }
        }
    }

    fn count(&mut self, world: &World, before: &[u64], targets: &[Target]) {
        let observation = &world.observation;
        let Some(host) = observation.host else { return };
        let reserve = observation.knobs.reserve_of(host.total_bytes);
        let short = usize::from(!world.fits());
        self.ticks += 1;
        self.pressure += u64::from(host.available_bytes < reserve / 4);
        for (i, (view, guest)) in observation.guests.iter().zip(&world.guests).enumerate() {
            self.guest_ticks += 1;
            self.lived[short] += 1;
            let last = before.get(i).copied().unwrap_or(view.ram_bytes);
            if targets[i].bytes < last && host.available_bytes > reserve * 2 {
                self.needless_mib += view.usage_bytes.min(last).saturating_sub(targets[i].bytes) >> 20;
            }
            let (up, starved) = (guest.is_up(observation.now_ms), guest.is_starved());
            self.starved[short] += u64::from(starved);
            let held = if up { guest.actual_bytes } else { 0 };
            self.broken += u64::from(starved && held + view.overhead_bytes < view.ram_bytes / PROMISED_PART);
            let need = needed_bytes(guest.wish.used_bytes).min(view.ram_bytes);
            let met = held.min(need) as f64 / need.max(1) as f64;
            self.met.iter_mut().zip([1.0, met, met * met]).for_each(|(sum, of)| *sum += of);
        }
    }

    /// Jain's index: 1 if all guests have the same part of what they need.
    pub fn fairness(&self) -> f64 {
        let [count, sum, squares] = self.met;
        sum * sum / (squares * count).max(1.0)
    }
}

/// What each guest is promised, and its weight, are the same for all governors. The rivals do not know other limits.
pub(super) fn promise(world: &mut World) {
    let Observation { containers, guests, .. } = &mut world.observation;
    for view in containers.iter_mut() {
        view.limits = World::weight(view.limits.weight);
    }
    for guest in guests {
        let mut at = guest.container;
        loop {
            containers[at].limits.min_bytes += guest.ram_bytes / PROMISED_PART;
            if at == 0 {
                break;
            }
            at = containers[at].parent;
        }
    }
}
