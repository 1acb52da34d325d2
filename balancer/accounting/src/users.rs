//! The users of a frame in their order of arrival: each list is stored once, and a frame holds its number.

use super::{ContainerId, GuestId, User};
use std::collections::HashMap;

/// The number of a frame that is not resident.
pub(super) const ABSENT: u32 = 0;
/// Stands for the last user of a frame that is no longer used.
pub(super) const NO_GUEST: GuestId = GuestId(u16::MAX);

/// A share of a frame: the container and the units it is charged.
pub(super) type Share = (ContainerId, u64);

/// The users of some frames.
#[derive(Debug)]
struct List {
    users: Box<[User]>,
    /// What they are charged for each frame. The units sum to a whole frame.
    shares: Box<[Share]>,
    /// Frames with this list.
    frames: u64,
}

/// All lists that are in use.
#[derive(Debug)]
pub(super) struct Lists {
    lists: Vec<List>,
    numbers: HashMap<Box<[User]>, u32>,
    unused: Vec<u32>,
    rule: fn(&[User]) -> Vec<Share>,
}

impl Lists {
    /// No lists yet; `rule` returns what the users of a frame are charged for it.
    pub fn new(rule: fn(&[User]) -> Vec<Share>) -> Self {
        let absent = List { users: [].into(), shares: [].into(), frames: 0 };
        Self { lists: vec![absent], numbers: HashMap::new(), unused: vec![], rule }
    }

    pub fn users(&self, number: u32) -> &[User] {
        &self.lists[number as usize].users
    }

    pub fn shares(&self, number: u32) -> &[Share] {
        &self.lists[number as usize].shares
    }

    /// The number of a list.
    pub fn number(&mut self, users: &[User]) -> u32 {
        if users.is_empty() {
            return ABSENT;
        }
        if let Some(number) = self.numbers.get(users) {
            return *number;
        }
        let list = List { users: users.into(), shares: (self.rule)(users).into(), frames: 0 };
        let number = self.unused.pop().unwrap_or_else(|| {
            self.lists.push(List { users: [].into(), shares: [].into(), frames: 0 });
            u32::try_from(self.lists.len() - 1)
                .expect("a list in use has a frame, and there are fewer frames")
        });
        self.lists[number as usize] = list;
        self.numbers.insert(users.into(), number);
        number
    }

    /// Frames change from one list to another. A list without frames is removed.
    pub fn moved(&mut self, from: u32, to: u32, frames: u64) {
        if to != ABSENT {
            self.lists[to as usize].frames += frames;
        }
        if from != ABSENT {
            let list = &mut self.lists[from as usize];
            list.frames -= frames;
            if list.frames == 0 {
                let users = std::mem::take(&mut list.users);
                list.shares = [].into();
                // If two lists became equal when a container was removed, only one of them has the number.
                if self.numbers.get(&users) == Some(&from) {
                    self.numbers.remove(&users);
                }
                self.unused.push(from);
            }
        }
    }

    /// Replaces a container by another, wherever it is charged. `changed` gets the shares before and after, and the
    /// number of frames.
    pub fn replace(
        &mut self,
        container: ContainerId,
        by: ContainerId,
        mut changed: impl FnMut(&[Share], &[Share], u64),
    ) {
        for number in 1..self.lists.len() {
            let list = &mut self.lists[number];
            if list.frames == 0 || !list.users.iter().any(|user| user.container == container) {
                continue;
            }
            let known = u32::try_from(number).expect("checked when it was made");
            if self.numbers.get(&list.users) == Some(&known) {
                self.numbers.remove(&list.users);
            }
            for user in list.users.iter_mut().filter(|user| user.container == container) {
                user.container = by;
            }
            let after: Box<[Share]> = (self.rule)(&list.users).into();
            changed(&list.shares, &after, list.frames);
            list.shares = after;
            self.numbers.entry(list.users.clone()).or_insert(known);
        }
    }

    pub fn storage_bytes(&self) -> usize {
        let of = |list: &List| {
            // Users are stored twice: here and as the key.
            2 * size_of_val(&*list.users) + size_of_val(&*list.shares)
        };
        self.lists.capacity() * size_of::<List>()
            + self.lists.iter().map(of).sum::<usize>()
            + self.numbers.capacity() * size_of::<(Box<[User]>, u32)>()
    }
}

/// The users after one more arrived; a known user keeps its position. The first user of a frame that was not used is
/// its only user.
pub(super) fn with(users: &[User], by: User) -> Vec<User> {
    let mut list: Vec<User> = users.iter().copied().filter(|user| user.guest != NO_GUEST).collect();
    if !list.iter().any(|user| user.guest == by.guest) {
        list.push(by);
    }
    list
}

/// The users after one left. The last one is remembered.
pub(super) fn without(users: &[User], guest: GuestId) -> Vec<User> {
    match users {
        [last] if last.guest == guest => vec![User { guest: NO_GUEST, container: last.container }],
        _ => users.iter().copied().filter(|user| user.guest != guest).collect(),
    }
}

/// The users after the charge of one of them moved to another container.
pub(super) fn charged_to(users: &[User], guest: GuestId, to: ContainerId) -> Vec<User> {
    let charge = |user: &User| if user.guest == guest { User { container: to, ..*user } } else { *user };
    users.iter().map(charge).collect()
}
