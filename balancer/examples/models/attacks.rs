//! The known attack on each system, as a trace; each is played through all systems.

use super::trace::{Event, Timed, Trace};
use accounting::{ContainerId, GuestId, Kind};
use serde::{Deserialize, Serialize};

/// The container that is attacked.
pub const VICTIM: ContainerId = ContainerId(1);
/// The container that attacks.
pub const ATTACKER: ContainerId = ContainerId(2);
const VICTIMS_GUEST: GuestId = GuestId(1);
const ATTACKERS_GUEST: GuestId = GuestId(2);
const LENGTH_MS: u64 = 60_000;
/// An image of 16 MiB.
const IMAGE: u64 = 4096;
/// First frames of the victim's RAM, of the attacker's RAM and of the image.
const VICTIMS_RAM: u64 = 0;
const ATTACKERS_RAM: u64 = 1 << 16;
const POOL: u64 = 2 << 16;

/// A known attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attack {
    /// On static: use shared pages only after another container touched them.
    FreeRiding,
    /// On partial: leave shared pages again and again, a second each time, so that others are charged for all of
    /// them.
    TimedUnshare,
    /// On RSS: fill the host with pages that are not mapped.
    UnmappedCache,
    /// On zones: keep one frame of each zone.
    Fragmentation,
}

impl Attack {
    /// All four.
    pub const ALL: [Self; 4] =
        [Self::FreeRiding, Self::TimedUnshare, Self::UnmappedCache, Self::Fragmentation];

    /// Its name in prose.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FreeRiding => "free-riding",
            Self::TimedUnshare => "timed unshare",
            Self::UnmappedCache => "unmapped cache",
            Self::Fragmentation => "fragmentation",
        }
    }

    /// The limit of the victim, frames: a quarter above its true part, which is half of the image.
    #[must_use]
    pub fn victims_limit_frames(self) -> u64 {
        IMAGE / 2 * 5 / 4
    }

    /// The attack as a trace of a minute.
    #[must_use]
    pub fn trace(self) -> Trace {
        let mut script = Script::new();
        match self {
            Self::FreeRiding => script.free_riding(),
            Self::TimedUnshare => script.timed_unshare(),
            Self::UnmappedCache => script.unmapped_cache(),
            Self::Fragmentation => script.fragmentation(),
        }
        script.end(self.name())
    }
}

/// Events in the order of their times.
struct Script(Vec<Timed>);

impl Script {
    fn new() -> Self {
        let mut script = Self(vec![]);
        script.at(0, Event::Attach { guest: VICTIMS_GUEST, container: VICTIM });
        script.at(0, Event::Attach { guest: ATTACKERS_GUEST, container: ATTACKER });
        script
    }

    fn at(&mut self, at_ms: u64, event: Event) {
        self.0.push(Timed { at_ms, event });
    }

    fn touch(&mut self, at_ms: u64, guest: GuestId, first: u64, count: u64) {
        let kind = if first == POOL { Kind::Pool } else { Kind::Private };
        self.at(at_ms, Event::Touch { guest, first, count, kind });
    }

    fn free_riding(&mut self) {
        self.touch(1000, VICTIMS_GUEST, POOL, IMAGE);
        self.at(1100, Event::Share { guest: ATTACKERS_GUEST, first: POOL, count: IMAGE });
        self.both_use(2000, LENGTH_MS, IMAGE);
    }

    fn timed_unshare(&mut self) {
        let (guest, first, count) = (ATTACKERS_GUEST, POOL, IMAGE);
        self.touch(1000, guest, first, count);
        self.at(1100, Event::Share { guest: VICTIMS_GUEST, first, count });
        for start in (5000..LENGTH_MS).step_by(5000) {
            self.both_use(start - 4000 + 200, start, count);
            self.at(start, Event::Unshare { guest, first, count });
            self.at(start + 500, Event::Use { guest: VICTIMS_GUEST, first, count });
            // It is back before the second is over: it used the pages in every second.
            self.at(start + 990, Event::Share { guest, first, count });
        }
    }

    fn unmapped_cache(&mut self) {
        self.touch(1000, VICTIMS_GUEST, VICTIMS_RAM, IMAGE / 2);
        for step in 0..32u64 {
            let (at_ms, first, count) = (1000 + step * 100, ATTACKERS_RAM + step * 512, 512);
            self.touch(at_ms, ATTACKERS_GUEST, first, count);
            self.at(at_ms, Event::Unshare { guest: ATTACKERS_GUEST, first, count });
        }
    }

    fn fragmentation(&mut self) {
        self.touch(1000, VICTIMS_GUEST, VICTIMS_RAM, IMAGE / 2);
        self.touch(1000, ATTACKERS_GUEST, ATTACKERS_RAM, 8 * IMAGE);
        self.touch(1000, ATTACKERS_GUEST, POOL, 4 * IMAGE);
        for (first, zones) in [(ATTACKERS_RAM, 64), (POOL, 32)] {
            for zone in 0..zones {
                self.at(2000, Event::Free { first: first + zone * 512 + 1, count: 511 });
            }
        }
    }

    /// Both use the image once a second.
    fn both_use(&mut self, from_ms: u64, to_ms: u64, count: u64) {
        for at_ms in (from_ms..to_ms).step_by(1000) {
            for guest in [VICTIMS_GUEST, ATTACKERS_GUEST] {
                self.at(at_ms, Event::Use { guest, first: POOL, count });
            }
        }
    }

    fn end(mut self, name: &str) -> Trace {
        self.0.sort_by_key(|timed| timed.at_ms);
        self.at(LENGTH_MS, Event::End {});
        Trace { name: name.into(), events: self.0 }
    }
}
