//! Only count RSS: a guest is charged for what its process maps right now, as the kernel counts it.
//!
//! Source: the resident set of `proc_pid_statm(5)`. The kernel keeps one number per process anyway, so nothing is
//! stored per frame; this system stores that number for each guest, and its container.
//!
//! - Each guest that maps a shared page is charged for all of it: the sum is at least what is resident and mapped.
//! - Pages that are not mapped are not charged: the page cache of a guest's disk, for one.
//! - A guest has one number, so it is charged as a whole to one container; its charge moves with it, never a part of
//!   it.
//!
//! Known attack: **unmapped page cache**. A guest that reads much and maps nothing fills the host and is not charged.

use super::charges::Charges;
use super::{Accounting, ContainerId, GuestId, Kind, Run, UNITS_PER_FRAME, User};
use std::collections::HashMap;

/// The resident frames of a guest, and the container that is charged for them.
#[derive(Debug, Clone, Copy)]
struct Resident {
    container: ContainerId,
    frames: u64,
}

/// Only count RSS.
#[derive(Debug, Default)]
pub struct Rss {
    guests: HashMap<GuestId, Resident>,
    charges: Charges,
}

impl Rss {
    fn map(&mut self, run: Run, by: User) {
        let guest = self.guests.entry(by.guest).or_insert(Resident { container: by.container, frames: 0 });
        guest.frames += run.count;
        self.charges.add(guest.container, run.count * UNITS_PER_FRAME);
    }

    fn unmap(&mut self, run: Run, guest: GuestId) {
        if let Some(guest) = self.guests.get_mut(&guest) {
            guest.frames = guest.frames.saturating_sub(run.count);
            self.charges.take(guest.container, run.count * UNITS_PER_FRAME);
        }
    }
}

impl Accounting for Rss {
    fn touch(&mut self, run: Run, by: User, _kind: Kind) {
        self.map(run, by);
    }

    fn share(&mut self, run: Run, by: User) {
        self.map(run, by);
    }

    fn unshare(&mut self, run: Run, guest: GuestId) {
        self.unmap(run, guest);
    }

    fn free(&mut self, run: Run, mapped_by: Option<GuestId>) {
        if let Some(guest) = mapped_by {
            self.unmap(run, guest);
        }
    }

    fn move_guest(&mut self, guest: GuestId, to: ContainerId) {
        let resident = self.guests.entry(guest).or_insert(Resident { container: to, frames: 0 });
        self.charges.take(resident.container, resident.frames * UNITS_PER_FRAME);
        self.charges.add(to, resident.frames * UNITS_PER_FRAME);
        resident.container = to;
    }

    fn move_charge(&mut self, _run: Run, _guest: GuestId, _to: ContainerId) {}

    fn remove(&mut self, container: ContainerId) {
        // Nothing is left of a container without guests.
        self.guests.retain(|_, guest| guest.container != container);
        self.charges.take_all(container);
    }

    fn charged(&self, container: ContainerId) -> u64 {
        self.charges.get(container)
    }

    fn storage_bytes(&self) -> usize {
        self.guests.capacity() * size_of::<(GuestId, Resident)>() + self.charges.storage_bytes()
    }
}
