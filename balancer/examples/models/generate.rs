//! Traces from a seed: the same seed gives the same trace.

use super::host::{Frame, Host};
use super::trace::{Event, MovedCharges, Timed, Trace};
use accounting::{ContainerId, GuestId, Kind, Run};

const LENGTH_MS: u64 = 60_000;
/// Guests start and leave with this much RAM each, frames: 16 MiB.
const RAM: u64 = 4096;
/// In addition to its RAM each has room for page cache of its disk.
const SLOT: u64 = 2 * RAM;
const GUESTS: u16 = 10;
const CONTAINERS: u16 = 5;
const IMAGES: u64 = 3;
/// Frames of an image: 8 MiB.
const IMAGE: u64 = 2048;
const POOL: u64 = SLOT * (GUESTS as u64 + 1);

/// A day in the life of a host, shrunk to a minute: guests start, grow, read files, share images, shrink, move
/// between containers, leave; a container is removed.
#[must_use]
pub fn mixed(seed: u64) -> Trace {
    let mut day = Day::new("mixed", seed);
    for guest in (1..=GUESTS).map(GuestId) {
        let container = ContainerId(1 + guest.0 % CONTAINERS);
        day.happen(Event::Attach { guest, container });
    }
    while day.now_ms < LENGTH_MS - 1000 {
        let guest = GuestId(day.random.u16(1..=GUESTS));
        match day.random.u32(0..100) {
            0..25 => day.grow(guest),
            25..35 => day.shrink(guest),
            35..55 => day.read_image(guest),
            55..60 => day.leave_image(guest),
            60..68 => day.read_file(guest),
            68..98 => day.work(guest),
            98 => {
                let container = ContainerId(day.random.u16(1..=CONTAINERS));
                let charges = if day.random.bool() { MovedCharges::Move } else { MovedCharges::Leave };
                day.happen(Event::Move { guest, container, charges });
            }
            _ => day.reboot(guest),
        }
        day.now_ms += day.random.u64(0..40);
    }
    day.end()
}

/// Only sharing: containers map the same images, each in its own order and time, use parts of them, and leave.
#[must_use]
pub fn sharing(seed: u64) -> Trace {
    let mut day = Day::new("sharing", seed);
    for guest in (1..=GUESTS).map(GuestId) {
        // Two guests of each container: a container counts once.
        day.happen(Event::Attach { guest, container: ContainerId(1 + guest.0 % CONTAINERS) });
    }
    while day.now_ms < LENGTH_MS - 1000 {
        let guest = GuestId(day.random.u16(1..=GUESTS));
        match day.random.u32(0..100) {
            0..40 => day.read_image(guest),
            40..50 => day.leave_image(guest),
            _ => day.work(guest),
        }
        day.now_ms += day.random.u64(0..40);
    }
    day.end()
}

/// A trace that is being generated: it holds only what can happen.
struct Day {
    name: &'static str,
    random: fastrand::Rng,
    now_ms: u64,
    host: Host,
    events: Vec<Timed>,
}

impl Day {
    fn new(name: &'static str, seed: u64) -> Self {
        Self {
            name,
            random: fastrand::Rng::with_seed(seed),
            now_ms: 0,
            host: Host::default(),
            events: vec![],
        }
    }

    fn happen(&mut self, event: Event) {
        let refused = self.host.apply(&event).err();
        assert!(refused.is_none(), "{refused:?}: only what can happen is generated");
        self.events.push(Timed { at_ms: self.now_ms, event });
    }

    /// Applies an event to each part of a run whose frames are alike.
    fn happen_to(
        &mut self,
        run: Run,
        alike: impl Fn(&Frame) -> Option<u8>,
        event: impl Fn(u8, u64, u64) -> Event,
    ) {
        for (part, value) in self.host.alike(run, alike) {
            self.happen(event(value, part.first, part.count));
        }
    }

    /// A run within a range: mostly whole blocks, as with huge pages, and sometimes a few frames.
    fn run(&mut self, first: u64, frames: u64) -> Run {
        if self.random.u32(0..4) > 0 {
            Run { first: first + self.random.u64(0..frames / 512) * 512, count: 512 }
        } else {
            let count = self.random.u64(1..64);
            Run { first: first + self.random.u64(0..frames - count), count }
        }
    }

    fn ram(guest: GuestId) -> u64 {
        u64::from(guest.0) * SLOT
    }

    fn image(&mut self) -> Run {
        let image = self.random.u64(0..IMAGES);
        self.run(POOL + image * IMAGE, IMAGE)
    }

    fn grow(&mut self, guest: GuestId) {
        let run = self.run(Self::ram(guest), RAM);
        let touch = |_, first, count| Event::Touch { guest, first, count, kind: Kind::Private };
        self.happen_to(run, |frame| (!frame.resident).then_some(0), touch);
    }

    fn shrink(&mut self, guest: GuestId) {
        let run = self.run(Self::ram(guest), RAM);
        self.happen_to(
            run,
            |frame| frame.resident.then_some(0),
            |_, first, count| Event::Free { first, count },
        );
    }

    /// Page cache of its disk on the host: resident, not mapped. What is cached already is dropped.
    fn read_file(&mut self, guest: GuestId) {
        let run = self.run(Self::ram(guest) + RAM, RAM);
        for (part, cached) in self.host.alike(run, |frame| Some(frame.resident)) {
            let Run { first, count } = part;
            if cached {
                self.happen(Event::Free { first, count });
            } else {
                self.happen(Event::Touch { guest, first, count, kind: Kind::Private });
                self.happen(Event::Unshare { guest, first, count });
            }
        }
    }

    fn read_image(&mut self, guest: GuestId) {
        let run = self.image();
        let state = |frame: &Frame| match (frame.resident, frame.mapped_by.contains(&guest)) {
            (false, _) => Some(0),
            (true, false) => Some(1),
            (true, true) => Some(2),
        };
        self.happen_to(run, state, |state, first, count| match state {
            0 => Event::Touch { guest, first, count, kind: Kind::Pool },
            1 => Event::Share { guest, first, count },
            _ => Event::Use { guest, first, count },
        });
    }

    fn leave_image(&mut self, guest: GuestId) {
        let run = self.image();
        let unshare = |_, first, count| Event::Unshare { guest, first, count };
        self.happen_to(run, |frame| maps(frame, guest), unshare);
    }

    /// Uses some of what it maps.
    fn work(&mut self, guest: GuestId) {
        for _ in 0..4 {
            for run in [self.image(), self.run(Self::ram(guest), RAM)] {
                let used = |_, first, count| Event::Use { guest, first, count };
                self.happen_to(run, |frame| maps(frame, guest), used);
            }
        }
    }

    /// Frees all of its own frames, and leaves the images.
    fn reboot(&mut self, guest: GuestId) {
        let pool = Run { first: POOL, count: IMAGES * IMAGE };
        let unshare = |_, first, count| Event::Unshare { guest, first, count };
        self.happen_to(pool, |frame| maps(frame, guest), unshare);
        let own = Run { first: Self::ram(guest), count: SLOT };
        // RAM is mapped, cache is not; to free them makes no difference.
        self.happen_to(
            own,
            |frame| frame.resident.then_some(0),
            |_, first, count| Event::Free { first, count },
        );
    }

    fn end(mut self) -> Trace {
        self.now_ms = LENGTH_MS;
        self.happen(Event::End {});
        Trace { name: self.name.into(), events: self.events }
    }
}

fn maps(frame: &Frame, guest: GuestId) -> Option<u8> {
    frame.mapped_by.contains(&guest).then_some(0)
}
