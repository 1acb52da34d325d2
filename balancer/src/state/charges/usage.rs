//! What guests and containers cost, by the host's accounting system.

use crate::guests::{Guest, Sampled, Watchable};
use crate::state::{Balancer, State};
use crate::tree::Tree;
use accounting::{Cost, GuestReading, System, Usage};
use protocol::bytes::FRAME_BYTES;
use protocol::path::ContainerPath;
use std::collections::BTreeSet;

impl Balancer {
    /// Guests whose working sets may be watched: session, process, RAM in bytes.
    #[must_use]
    pub fn watchable(&self) -> Vec<Watchable> {
        let state = self.state();
        state.guests.values().map(|guest| (guest.session, guest.pid, guest.about.ram_bytes)).collect()
    }

    /// Takes what was read of working sets, by session. Bytes.
    pub fn take_working_sets(&self, sets: &[(u64, u64)]) {
        let state = &mut *self.state();
        for guest in state.guests.values_mut() {
            if let Some((_, bytes)) = sets.iter().find(|(session, _)| *session == guest.session) {
                guest.working_set = Some(Sampled::now((*bytes).min(guest.about.ram_bytes)));
            }
        }
    }
}

impl State {
    /// What a guest costs, whoever pays, with what it is charged for the page cache of its disks.
    pub(in crate::state) fn usage_of(&self, guest: &Guest, disk_cache: Cost) -> Cost {
        let mut sum = disk_cache;
        self.accounting.usage(&self.reading_of(guest)).into_values().for_each(|cost| sum += cost);
        sum += Cost { bytes: self.pool.charged_to_guest(guest.session), error_bytes: 0 };
        sum
    }

    /// What all guests cost whom.
    pub(in crate::state) fn usage(&self) -> Usage {
        let mut usage = self.memory_usage();
        self.add_disk_cache(&mut usage);
        usage
    }

    /// The same without the page cache of their disks. Nobody is refused or asked for memory because of that: it
    /// makes way.
    pub(in crate::state) fn memory_usage(&self) -> Usage {
        self.usage_with(|guest| self.reading_of(guest))
    }

    /// What is known of a guest's memory. A page that it maps of the pool's images is in doubt as long as the pool's
    /// books do not charge it, which are as old as the last scan of its table: it is in the error of the guest's own
    /// charge.
    pub(in crate::state) fn reading_of(&self, guest: &Guest) -> GuestReading {
        let mut reading = guest.reading(self.accounting);
        let known = guest.figures.images().pool.known_bytes;
        let unbooked = known.saturating_sub(self.pool.mapped_by(guest.session));
        reading.error_bytes = reading.error_bytes.saturating_add(unbooked).max(pool_error_bytes(guest));
        reading
    }

    /// What all guests would cost whom, read like this, without the page cache of their disks.
    pub(in crate::state) fn usage_with(&self, reading: impl Fn(&Guest) -> GuestReading) -> Usage {
        let known: BTreeSet<u16> = self.tree.iter().map(|(_, node)| node.owner).collect();
        let mut sum = Usage::new();
        for guest in self.guests.values() {
            for (owner, cost) in self.accounting.usage(&reading(guest)) {
                // A container that is gone pays no more: then the guest's own does.
                let payer = if known.contains(&owner) { owner } else { guest.owner };
                *sum.entry(payer).or_default() += cost;
            }
            // Until the next scan the guest's own container is charged for what it touches at the charge of another
            // one.
            let charging = self.charging(guest);
            if charging != guest.owner && self.accounting != System::Rss {
                *sum.entry(charging).or_default() +=
                    Cost { bytes: 0, error_bytes: guest.touched_since_look() };
            }
        }
        for (payer, bytes) in self.pool.charges() {
            *sum.entry(self.payer(*payer)).or_default() += Cost { bytes: *bytes, error_bytes: 0 };
        }
        sum
    }

    /// What a container and those inside it are charged of that.
    pub(in crate::state) fn usage_inside(&self, usage: &Usage, path: &ContainerPath) -> Cost {
        let mut sum = Cost::default();
        for (_, node) in self.tree.iter().filter(|(inside, _)| Tree::is_inside(inside, path)) {
            sum += usage.get(&node.owner).copied().unwrap_or_default();
        }
        sum
    }
}

/// What a guest may map of images that its table does not tell of yet, bytes.
fn pool_error_bytes(guest: &Guest) -> u64 {
    let frames = guest.frames.totals().shared_error_frames_max;
    frames.saturating_mul(FRAME_BYTES).min(guest.frames.image_bytes())
}
