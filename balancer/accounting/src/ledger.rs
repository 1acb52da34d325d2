//! What static and partial page ownership have in common: the users of every frame, and what a rule charges them.

use super::charges::Charges;
use super::frame_map::FrameMap;
use super::inherited::Inherited;
use super::users::{Lists, NO_GUEST, Share, charged_to, with, without};
use super::{Accounting, ContainerId, GuestId, Kind, POOL, Run, User};
use std::num::NonZeroU64;

/// A change of what a container is charged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub container: ContainerId,
    pub before: u64,
    pub after: u64,
    /// True if the container caused it itself, false if another one came or left.
    pub own: bool,
}

/// Users and charges.
#[derive(Debug)]
pub struct Ledger {
    frames: FrameMap,
    lists: Lists,
    charges: Charges,
    inherited: Option<Inherited>,
    /// Changes by the current event; kept so that its memory is reused.
    changes: Vec<Change>,
}

impl Ledger {
    /// An empty host. `rule` returns what the users of a frame are charged for it, in units that sum to a whole
    /// frame. With `grace`, a half-life in milliseconds, changes of a charge that others cause count gradually.
    pub(super) fn new(rule: fn(&[User]) -> Vec<Share>, grace: Option<NonZeroU64>) -> Self {
        Self {
            frames: FrameMap::default(),
            lists: Lists::new(rule),
            charges: Charges::default(),
            inherited: grace.map(Inherited::new),
            changes: vec![],
        }
    }

    /// Gives every frame of a run the users that `next` makes of its present users. Frames with the same users are
    /// charged together, so a run of alike frames costs one charge and a step per block.
    fn update(&mut self, run: Run, actor: GuestId, next: impl Fn(&[User]) -> Vec<User>) {
        let Self { frames, lists, charges, inherited, changes } = self;
        changes.clear();
        let mut open: Option<(u32, u32, u64)> = None;
        frames.update(run, |from, count| {
            if let Some((known, to, open_count)) = &mut open
                && *known == from
            {
                *open_count += count;
                return *to;
            }
            let to = lists.number(&next(lists.users(from)));
            if let Some(done) = open.replace((from, to, count)) {
                charge(lists, charges, changes, actor, done);
            }
            to
        });
        if let Some(done) = open {
            charge(lists, charges, changes, actor, done);
        }
        if let Some(inherited) = inherited {
            changes
                .iter()
                .filter(|change| change.container != POOL)
                .for_each(|change| inherited.book(*change));
        }
    }
}

impl Accounting for Ledger {
    fn touch(&mut self, run: Run, by: User, _kind: Kind) {
        self.update(run, by.guest, |_| vec![by])
    }

    fn share(&mut self, run: Run, by: User) {
        self.update(run, by.guest, |users| with(users, by))
    }

    fn unshare(&mut self, run: Run, guest: GuestId) {
        self.update(run, guest, |users| without(users, guest))
    }

    fn free(&mut self, run: Run, mapped_by: Option<GuestId>) {
        self.update(run, mapped_by.unwrap_or(NO_GUEST), |_| vec![])
    }

    fn move_guest(&mut self, _guest: GuestId, _to: ContainerId) {}

    fn move_charge(&mut self, run: Run, guest: GuestId, to: ContainerId) {
        self.update(run, guest, |users| charged_to(users, guest, to))
    }

    fn remove(&mut self, container: ContainerId) {
        let charges = &mut self.charges;
        self.lists.replace(container, POOL, |before, after, frames| {
            before.iter().for_each(|(payer, units)| charges.take(*payer, units * frames));
            after.iter().for_each(|(payer, units)| charges.add(*payer, units * frames));
        });
        if let Some(inherited) = &mut self.inherited {
            inherited.forget(container);
        }
    }

    fn charged(&self, container: ContainerId) -> u64 {
        self.charges.get(container)
    }

    fn advance(&mut self, now_ms: u64) {
        if let Some(inherited) = &mut self.inherited {
            inherited.advance(now_ms);
        }
    }

    fn enforceable(&self, container: ContainerId) -> u64 {
        let inherited = self.inherited.as_ref().map_or(0, |inherited| inherited.units(container));
        self.charged(container).saturating_add_signed(-inherited)
    }

    fn storage_bytes(&self) -> usize {
        self.frames.storage_bytes()
            + self.lists.storage_bytes()
            + self.charges.storage_bytes()
            + self.inherited.as_ref().map_or(0, Inherited::storage_bytes)
    }
}

/// Charges frames that changed from one list of users to another.
fn charge(
    lists: &mut Lists,
    charges: &mut Charges,
    changes: &mut Vec<Change>,
    actor: GuestId,
    (from, to, frames): (u32, u32, u64),
) {
    if from == to {
        return;
    }
    let mut change = |(container, units): &Share, add: bool| {
        let index = changes.iter().position(|change| change.container == *container).unwrap_or_else(|| {
            let before = charges.get(*container);
            changes.push(Change { container: *container, before, after: before, own: false });
            changes.len() - 1
        });
        if add {
            charges.add(*container, units * frames);
        } else {
            charges.take(*container, units * frames);
        }
        changes[index].after = charges.get(*container);
    };
    // First what is added: a container that is in both lists is never charged less than in the end.
    lists.shares(to).iter().for_each(|share| change(share, true));
    lists.shares(from).iter().for_each(|share| change(share, false));
    for list in [from, to] {
        for user in lists.users(list).iter().filter(|user| user.guest == actor) {
            changes.iter_mut().filter(|change| change.container == user.container).for_each(|c| c.own = true);
        }
    }
    lists.moved(from, to, frames);
}
