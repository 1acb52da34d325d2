//! Software zones: memory is handed out in contiguous zones that each belong to one container. The owner of a frame
//! is the owner of its zone; nothing is stored per frame.
//!
//! Source: "software zones" of the wiki's comparison; the pseudo zones of CKRM's second memory controller (2006) are
//! an implementation: a class owns whole zones, and pages are allocated from them.
//!
//! - A zone belongs to the container for which its first frame became resident, until its last frame is freed; zones
//!   of the pool belong to the pool, whatever guests map their pages.
//! - A zone is charged whole. What is charged beyond the resident frames is **fragmentation**.
//! - A charge moves in whole zones. If only a part of a zone is to move, it stays: the zone has one owner.
//!
//! Known attack: **fragmentation**. A container that frees all but one frame of each zone makes the rest useless to
//! all: in its own zones it is charged for that, in zones of the pool it is not.

use super::charges::Charges;
use super::{Accounting, ContainerId, GuestId, Kind, POOL, Run, UNITS_PER_FRAME, User};

/// Frames of a zone of 2 MiB, the default.
pub const ZONE_FRAMES: u32 = 512;

/// Software zones.
#[derive(Debug)]
pub struct Zones {
    frames_per_zone: u64,
    /// Resident frames of each zone.
    used: Vec<u32>,
    /// The owner of each zone while it has resident frames.
    owners: Vec<ContainerId>,
    charges: Charges,
    used_total: u64,
    owned_zones: u64,
}

impl Default for Zones {
    fn default() -> Self {
        Self::new(ZONE_FRAMES)
    }
}

impl Zones {
    /// An empty host with zones of this many frames; at least 1.
    #[must_use]
    pub fn new(frames_per_zone: u32) -> Self {
        Self {
            frames_per_zone: u64::from(frames_per_zone.max(1)),
            used: vec![],
            owners: vec![],
            charges: Charges::default(),
            used_total: 0,
            owned_zones: 0,
        }
    }

    fn zone_units(&self) -> u64 {
        self.frames_per_zone * UNITS_PER_FRAME
    }

    /// The zones of a run, and how many of its frames are in each.
    fn zones(&self, run: Run) -> impl Iterator<Item = (usize, u32)> + use<> {
        let (per_zone, end) = (self.frames_per_zone, run.first + run.count);
        let mut at = run.first;
        std::iter::from_fn(move || {
            let zone = at / per_zone;
            let frames = ((zone + 1) * per_zone).min(end).checked_sub(at).filter(|frames| *frames > 0)?;
            at += frames;
            let zone = usize::try_from(zone).expect("frame numbers are memory addresses / 4096");
            Some((zone, u32::try_from(frames).expect("a zone has fewer frames")))
        })
    }
}

impl Accounting for Zones {
    fn touch(&mut self, run: Run, by: User, kind: Kind) {
        let owner = if kind == Kind::Pool { POOL } else { by.container };
        for (zone, frames) in self.zones(run) {
            if zone >= self.used.len() {
                self.used.resize(zone + 1, 0);
                self.owners.resize(zone + 1, POOL);
            }
            if self.used[zone] == 0 {
                self.owners[zone] = owner;
                self.owned_zones += 1;
                self.charges.add(owner, self.zone_units());
            }
            self.used[zone] += frames;
        }
        self.used_total += run.count;
    }

    fn share(&mut self, _run: Run, _by: User) {}

    fn unshare(&mut self, _run: Run, _guest: GuestId) {}

    fn free(&mut self, run: Run, _mapped_by: Option<GuestId>) {
        for (zone, frames) in self.zones(run) {
            self.used[zone] -= frames;
            if self.used[zone] == 0 {
                self.owned_zones -= 1;
                self.charges.take(self.owners[zone], self.zone_units());
            }
        }
        self.used_total -= run.count;
    }

    fn move_guest(&mut self, _guest: GuestId, _to: ContainerId) {}

    fn move_charge(&mut self, run: Run, _guest: GuestId, to: ContainerId) {
        let units = self.zone_units();
        for (zone, frames) in self.zones(run) {
            let whole = u64::from(frames) == self.frames_per_zone;
            let used = self.used.get(zone).is_some_and(|used| *used > 0);
            if whole && used && self.owners[zone] != POOL {
                self.charges.take(self.owners[zone], units);
                self.charges.add(to, units);
                self.owners[zone] = to;
            }
        }
    }

    fn remove(&mut self, container: ContainerId) {
        let left = self.charges.take_all(container);
        self.charges.add(POOL, left);
        self.owners.iter_mut().filter(|owner| **owner == container).for_each(|owner| *owner = POOL);
    }

    fn charged(&self, container: ContainerId) -> u64 {
        self.charges.get(container)
    }

    fn fragmentation(&self) -> u64 {
        (self.owned_zones * self.frames_per_zone - self.used_total) * UNITS_PER_FRAME
    }

    fn storage_bytes(&self) -> usize {
        self.used.capacity() * size_of::<u32>()
            + self.owners.capacity() * size_of::<ContainerId>()
            + self.charges.storage_bytes()
    }
}
