//! What guests and containers cost, by the host's accounting system.

use crate::guests::{Guest, GuestSeq, Sampled, Watchable};
use crate::state::{Balancer, State};
use accounting::{Cost, GuestReading, System, Usage};
use protocol::bytes::FRAME_BYTES;
use protocol::path::ContainerPath;
use std::collections::BTreeSet;

impl Balancer {
    /// Guests whose working sets may be watched: number, process, RAM in bytes.
    #[must_use]
    pub fn watchable(&self) -> Vec<Watchable> {
        let watchable = |guest: &Guest| (guest.seq, guest.pid, guest.about.ram_bytes);
        self.view(|state, _| state.guests.by_seq().map(watchable).collect())
    }

    /// Takes what was read of working sets, bytes. A guest that left meanwhile has none.
    pub fn take_working_sets(&self, sets: &[(GuestSeq, u64)]) {
        self.change(|state, now| {
            for (seq, bytes) in sets {
                if let Some(guest) = state.guests.get_mut(*seq) {
                    let value = (*bytes).min(guest.about.ram_bytes);
                    guest.working_set = Some(Sampled { value, at: now });
                }
            }
        });
    }
}

impl State {
    /// What a guest costs, whichever container pays, with what it is charged for the page cache of its disks.
    pub(in crate::state) fn usage_of(&self, guest: &Guest, disk_cache: Cost) -> Cost {
        let mut sum = disk_cache;
        self.accounting.usage(&self.reading_of(guest)).into_values().for_each(|cost| sum += cost);
        sum += Cost { bytes: self.pool.images.charged_to_guest(guest.seq), error_bytes: 0 };
        sum
    }

    /// What each container is charged for all guests.
    pub(in crate::state) fn usage(&self) -> Usage {
        let mut usage = self.memory_usage();
        self.add_disk_cache(&mut usage);
        usage
    }

    /// The same without the page cache of their disks, because of which no guest is refused or asked for memory: it
    /// can be dropped.
    pub(in crate::state) fn memory_usage(&self) -> Usage {
        self.usage_with(|guest| self.reading_of(guest))
    }

    /// What is known of a guest's memory. A page that it maps of the pool's images is in doubt until the pool's
    /// accounts charge it, which are as old as the last scan of its table: until then it is in the error of the
    /// guest's own charge.
    pub(in crate::state) fn reading_of(&self, guest: &Guest) -> GuestReading {
        let mut reading = guest.reading(self.accounting);
        let known = guest.figures.images().pool.known_bytes;
        let uncharged = known.saturating_sub(self.pool.images.mapped_by(guest.seq));
        reading.error_bytes = reading.error_bytes.saturating_add(uncharged).max(pool_error_bytes(guest));
        reading
    }

    /// What each container would be charged if the guests were read like this, without the page cache of their disks.
    pub(in crate::state) fn usage_with(&self, reading: impl Fn(&Guest) -> GuestReading) -> Usage {
        let known: BTreeSet<u16> = self.containers.tree().iter().map(|(_, node)| node.owner).collect();
        let mut sum = Usage::new();
        for guest in self.guests.by_seq() {
            for (owner, cost) in self.accounting.usage(&reading(guest)) {
                // A container that is gone is not charged any more: the guest's own container is.
                let payer = if known.contains(&owner) { owner } else { guest.owner };
                *sum.entry(payer).or_default() += cost;
            }
            // Until the next scan the guest's own container pays for what it touches on another one's account.
            let charging = self.containers.charging(guest);
            if charging != guest.owner && self.accounting != System::Rss {
                let error_bytes = guest.touched_since_scan();
                *sum.entry(charging).or_default() += Cost { bytes: 0, error_bytes };
            }
        }
        for (payer, bytes) in self.pool.images.charges() {
            *sum.entry(self.payer(*payer)).or_default() += Cost { bytes: *bytes, error_bytes: 0 };
        }
        sum
    }

    /// What a container and those inside it are charged of this usage.
    pub(in crate::state) fn usage_inside(&self, usage: &Usage, path: &ContainerPath) -> Cost {
        let mut sum = Cost::default();
        for (_, node) in self.containers.tree().iter().filter(|(inside, _)| inside.is_inside(path)) {
            sum += usage.get(&node.owner).copied().unwrap_or_default();
        }
        sum
    }
}

/// What a guest may map of images without its table showing it yet, bytes.
fn pool_error_bytes(guest: &Guest) -> u64 {
    let frames = guest.frames.totals().shared_error_frames_max;
    frames.saturating_mul(FRAME_BYTES).min(guest.frames.image_bytes())
}
