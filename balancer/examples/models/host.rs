//! A host that tracks every frame: it decides whether an event can happen, and what the accounting systems receive
//! for it. Plain and slow on purpose; it shares no code with the systems.

use super::trace::{CONTAINERS_MAX, Event, FRAMES_MAX, GUESTS_MAX, MovedCharges};
use accounting::{Accounting, ContainerId, GuestId, Kind, Run, User};
use std::collections::BTreeMap;

/// What a system receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the arguments of the methods of `Accounting`")]
pub enum Step {
    Touch(Run, User, Kind),
    Share(Run, User),
    Unshare(Run, GuestId),
    Free(Run, Option<GuestId>),
    MoveGuest(GuestId, ContainerId),
    MoveCharge(Run, GuestId, ContainerId),
    Remove(ContainerId),
}

impl Step {
    /// Applies the step to a system.
    pub fn apply(self, system: &mut dyn Accounting) {
        match self {
            Self::Touch(run, by, kind) => system.touch(run, by, kind),
            Self::Share(run, by) => system.share(run, by),
            Self::Unshare(run, guest) => system.unshare(run, guest),
            Self::Free(run, mapped_by) => system.free(run, mapped_by),
            Self::MoveGuest(guest, to) => system.move_guest(guest, to),
            Self::MoveCharge(run, guest, to) => system.move_charge(run, guest, to),
            Self::Remove(container) => system.remove(container),
        }
    }
}

/// A frame.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// True if the host holds a page for it.
    pub resident: bool,
    /// The guests that map it.
    pub mapped_by: Vec<GuestId>,
}

/// The host.
#[derive(Debug, Default)]
pub struct Host {
    frames: Vec<Frame>,
    attached: BTreeMap<GuestId, ContainerId>,
}

impl Host {
    /// The container of a guest.
    #[must_use]
    pub fn container(&self, guest: GuestId) -> Option<ContainerId> {
        self.attached.get(&guest).copied()
    }

    /// Applies an event. Returns what the systems receive for it.
    ///
    /// # Errors
    /// Why it cannot happen. The host is then unchanged.
    pub fn apply(&mut self, event: &Event) -> Result<Vec<Step>, String> {
        if let Some(run) = event.run() {
            self.check(event, run)?;
        }
        match *event {
            Event::Attach { guest, container } => {
                check_id("guest", guest.0, GUESTS_MAX)?;
                check_id("container", container.0, CONTAINERS_MAX)?;
                if let Some(there) = self.attached.get(&guest) {
                    return Err(format!("guest {} is in container {} already: use move", guest.0, there.0));
                }
                self.attached.insert(guest, container);
                Ok(vec![])
            }
            Event::Touch { guest, kind, first, count } => {
                let (by, run) = (self.user(guest)?, Run { first, count });
                self.each(run, |frame| *frame = Frame { resident: true, mapped_by: vec![guest] });
                Ok(vec![Step::Touch(run, by, kind)])
            }
            Event::Share { guest, first, count } => {
                let (by, run) = (self.user(guest)?, Run { first, count });
                self.each(run, |frame| frame.mapped_by.push(guest));
                Ok(vec![Step::Share(run, by)])
            }
            Event::Use { .. } | Event::End {} => Ok(vec![]),
            Event::Unshare { guest, first, count } => {
                let run = Run { first, count };
                self.each(run, |frame| frame.mapped_by.retain(|other| *other != guest));
                Ok(vec![Step::Unshare(run, guest)])
            }
            Event::Free { first, count } => {
                let run = Run { first, count };
                let parts = self.alike(run, |frame| Some(frame.mapped_by.first().copied()));
                self.each(run, |frame| *frame = Frame::default());
                Ok(parts.into_iter().map(|(run, mapped_by)| Step::Free(run, mapped_by)).collect())
            }
            Event::Move { guest, container, charges } => {
                check_id("container", container.0, CONTAINERS_MAX)?;
                self.user(guest)?;
                self.attached.insert(guest, container);
                let mut steps = vec![Step::MoveGuest(guest, container)];
                if charges == MovedCharges::Move {
                    let all = Run { first: 0, count: self.frames.len() as u64 };
                    let mapped = self.alike(all, |frame| frame.mapped_by.contains(&guest).then_some(()));
                    steps.extend(mapped.into_iter().map(|(run, ())| Step::MoveCharge(run, guest, container)));
                }
                Ok(steps)
            }
            Event::Remove { container } => {
                check_id("container", container.0, CONTAINERS_MAX)?;
                let inside =
                    self.attached.iter().filter(|(_, of)| **of == container).map(|(guest, _)| *guest);
                // A guest that maps nothing counts as gone.
                let maps = |guest: &GuestId| self.frames.iter().any(|frame| frame.mapped_by.contains(guest));
                if let Some(guest) = inside.into_iter().find(maps) {
                    let (container, guest) = (container.0, guest.0);
                    return Err(format!(
                        "container {container} cannot be removed: guest {guest} maps frames in it"
                    ));
                }
                self.attached.retain(|_, of| *of != container);
                Ok(vec![Step::Remove(container)])
            }
        }
    }

    fn check(&mut self, event: &Event, run: Run) -> Result<(), String> {
        let end = run.first.checked_add(run.count).filter(|end| *end <= FRAMES_MAX && run.count > 0);
        let Some(end) = end else {
            return Err(format!(
                "first is {} and count is {}, but count must be at least 1 and first + count at most {FRAMES_MAX}",
                run.first, run.count
            ));
        };
        let end = usize::try_from(end).expect("bounded above");
        if end > self.frames.len() {
            self.frames.resize(end, Frame::default());
        }
        for at in range(run) {
            let frame = &self.frames[at];
            let maps = |guest: GuestId| frame.mapped_by.contains(&guest);
            let wrong = match *event {
                Event::Touch { .. } if frame.resident => Some("is touched, but is resident already".into()),
                Event::Share { .. } if !frame.resident => Some("is shared, but is not resident".into()),
                Event::Share { guest, .. } if maps(guest) => {
                    Some(format!("is mapped by guest {} already", guest.0))
                }
                Event::Use { guest, .. } | Event::Unshare { guest, .. } if !maps(guest) => {
                    Some(format!("is not mapped by guest {}", guest.0))
                }
                Event::Free { .. } if !frame.resident => Some("is freed, but is not resident".into()),
                Event::Free { .. } if frame.mapped_by.len() > 1 => {
                    Some(format!("is freed, but {} guests map it", frame.mapped_by.len()))
                }
                _ => None,
            };
            if let Some(wrong) = wrong {
                return Err(format!("frame {at} {wrong}"));
            }
        }
        Ok(())
    }

    fn user(&self, guest: GuestId) -> Result<User, String> {
        let container = self.container(guest);
        let container =
            container.ok_or_else(|| format!("guest {} is not attached to a container", guest.0))?;
        Ok(User { guest, container })
    }

    fn each(&mut self, run: Run, change: impl FnMut(&mut Frame)) {
        self.frames[range(run)].iter_mut().for_each(change);
    }

    /// The parts of a run that are alike; those without a value are left out.
    pub fn alike<T: PartialEq + Copy>(&self, run: Run, of: impl Fn(&Frame) -> Option<T>) -> Vec<(Run, T)> {
        let mut parts: Vec<(Run, T)> = Vec::new();
        let untouched = Frame::default();
        for at in range(run) {
            let Some(value) = of(self.frames.get(at).unwrap_or(&untouched)) else { continue };
            match parts.last_mut() {
                Some((part, known)) if *known == value && part.first + part.count == at as u64 => {
                    part.count += 1
                }
                _ => parts.push((Run { first: at as u64, count: 1 }, value)),
            }
        }
        parts
    }
}

pub(super) fn range(run: Run) -> std::ops::Range<usize> {
    let index = |frame| usize::try_from(frame).expect("checked against FRAMES_MAX");
    index(run.first)..index(run.first + run.count)
}

fn check_id(field: &str, id: u16, max: u16) -> Result<(), String> {
    if (1..=max).contains(&id) {
        Ok(())
    } else {
        Err(format!("{field} is {id}, but must be between 1 and {max}"))
    }
}
