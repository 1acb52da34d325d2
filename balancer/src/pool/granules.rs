//! Which granules of one managed image are in memory, and which guests hold them.
//!
//! ```text
//!            begin           filled                  leave               free
//!   absent ---------> filling ------> there, held by ------> leaving ------------> absent
//!                        |            0..n guests            until no guest holds it
//!                        +-- failed --> absent
//! ```
//!
//! A guest holds a granule from the moment when it was told that it is there until it reports that it has unmapped it,
//! or is gone. The guests' frame tables do not count here.

use super::numbers::{GranuleIndex, GuestSeq, Touch};
use std::collections::BTreeMap;
use std::time::Instant;

/// State of a granule that is not absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GranuleState {
    /// It is being read from the disk.
    Filling,
    /// In memory.
    There,
    /// Its holders were told at this moment to unmap it.
    Leaving(Instant),
}

#[derive(Debug)]
struct Slot {
    state: GranuleState,
    /// Guests in the order in which they came to this granule.
    holders: Vec<GuestSeq>,
    /// Its place in the queues.
    touch: Touch,
}

/// Granules in memory, and queues of those that may be evicted, the oldest first.
#[derive(Debug, Default)]
pub struct Granules {
    slots: BTreeMap<GranuleIndex, Slot>,
    /// Granules that no guest holds, and those that one guest holds alone.
    queues: BTreeMap<Option<GuestSeq>, BTreeMap<Touch, GranuleIndex>>,
    /// All that are held, by any guest.
    held: BTreeMap<Touch, GranuleIndex>,
    leaving: u64,
}

impl Granules {
    /// State of a granule; `None` for one that is absent.
    #[must_use]
    pub fn state(&self, granule: GranuleIndex) -> Option<GranuleState> {
        self.slots.get(&granule).map(|slot| slot.state)
    }

    /// Granules that take room: all that are not absent.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Granules that are being read from the disk.
    #[must_use]
    pub fn filling(&self) -> u64 {
        self.slots.values().filter(|slot| slot.state == GranuleState::Filling).count() as u64
    }

    /// Granules whose room becomes free when guests answer.
    #[must_use]
    pub fn leaving(&self) -> u64 {
        self.leaving
    }

    /// Granules in memory.
    pub fn iter(&self) -> impl Iterator<Item = GranuleIndex> + '_ {
        self.slots.keys().copied()
    }

    /// Granules that take room for guests: all but those that no guest holds.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.count() - self.queues.get(&None).map_or(0, |queue| queue.len() as u64)
    }

    /// Granules that this guest holds and no other one.
    #[must_use]
    pub fn held_alone(&self, guest: GuestSeq) -> u64 {
        self.queues.get(&Some(guest)).map_or(0, |queue| queue.len() as u64)
    }

    /// The oldest that no guest holds, or that this guest holds alone.
    #[must_use]
    pub fn oldest(&self, holder: Option<GuestSeq>) -> Option<(Touch, GranuleIndex)> {
        self.queues.get(&holder)?.first_key_value().map(|(touch, granule)| (*touch, *granule))
    }

    /// The oldest that a guest holds.
    #[must_use]
    pub fn oldest_held(&self) -> Option<(Touch, GranuleIndex)> {
        self.held.first_key_value().map(|(touch, granule)| (*touch, *granule))
    }

    /// Room is taken for a granule that is absent.
    pub fn begin(&mut self, granule: GranuleIndex) {
        let slot = Slot { state: GranuleState::Filling, holders: vec![], touch: Touch(0) };
        let before = self.slots.insert(granule, slot);
        debug_assert!(before.is_none(), "granule {granule} was there");
    }

    /// It is in memory.
    pub fn filled(&mut self, granule: GranuleIndex, touch: Touch) {
        self.change(granule, |slot| (slot.state, slot.touch) = (GranuleState::There, touch));
    }

    /// A guest is told that a granule is there. A granule is as old as its last new holder.
    pub fn hold(&mut self, granule: GranuleIndex, guest: GuestSeq, touch: Touch) {
        self.change(granule, |slot| {
            if !slot.holders.contains(&guest) {
                slot.holders.push(guest);
                slot.touch = touch;
            }
        });
    }

    /// Begins to evict a granule. Returns the guests that have to unmap it.
    pub fn leave(&mut self, granule: GranuleIndex, now: Instant) -> Vec<GuestSeq> {
        self.change(granule, |slot| slot.state = GranuleState::Leaving(now)).unwrap_or_default()
    }

    /// A guest has unmapped a granule. True if it held it.
    pub fn unmapped(&mut self, granule: GranuleIndex, guest: GuestSeq) -> bool {
        let holds = self.slots.get(&granule).is_some_and(|slot| slot.holders.contains(&guest));
        if holds {
            self.change(granule, |slot| slot.holders.retain(|holder| *holder != guest));
        }
        holds
    }

    /// True if a granule is leaving and no guest holds it.
    #[must_use]
    pub fn is_free(&self, granule: GranuleIndex) -> bool {
        let free = |slot: &Slot| matches!(slot.state, GranuleState::Leaving(_)) && slot.holders.is_empty();
        self.slots.get(&granule).is_some_and(free)
    }

    /// It is absent from now on.
    pub fn free(&mut self, granule: GranuleIndex) {
        self.unlist(granule);
        if let Some(slot) = self.slots.remove(&granule) {
            self.leaving -= u64::from(matches!(slot.state, GranuleState::Leaving(_)));
        }
    }

    /// Granules that a guest holds.
    #[must_use]
    pub fn of(&self, guest: GuestSeq) -> Vec<GranuleIndex> {
        let held = self.slots.iter().filter(|(_, slot)| slot.holders.contains(&guest));
        held.map(|(granule, _)| *granule).collect()
    }

    /// Guests that were told to unmap before a moment and did not.
    pub fn overdue(&self, before: Instant) -> impl Iterator<Item = GuestSeq> + '_ {
        let late = move |slot: &&Slot| matches!(slot.state, GranuleState::Leaving(since) if since < before);
        let slots = if self.leaving == 0 { None } else { Some(self.slots.values()) };
        slots.into_iter().flatten().filter(late).flat_map(|slot| slot.holders.iter().copied())
    }

    /// Changes a granule and its place in the queues; its holders afterwards.
    fn change(&mut self, granule: GranuleIndex, change: impl FnOnce(&mut Slot)) -> Option<Vec<GuestSeq>> {
        self.unlist(granule);
        let slot = self.slots.get_mut(&granule)?;
        let was_leaving = matches!(slot.state, GranuleState::Leaving(_));
        change(slot);
        let is_leaving = matches!(slot.state, GranuleState::Leaving(_));
        self.leaving = self.leaving + u64::from(is_leaving) - u64::from(was_leaving);
        if slot.state == GranuleState::There {
            if slot.holders.len() <= 1 {
                let queue = self.queues.entry(slot.holders.first().copied()).or_default();
                queue.insert(slot.touch, granule);
            }
            if !slot.holders.is_empty() {
                self.held.insert(slot.touch, granule);
            }
        }
        Some(slot.holders.clone())
    }

    fn unlist(&mut self, granule: GranuleIndex) {
        let Some(slot) = self.slots.get(&granule).filter(|slot| slot.state == GranuleState::There) else {
            return;
        };
        let key = slot.holders.first().copied();
        if slot.holders.len() <= 1
            && let Some(queue) = self.queues.get_mut(&key)
        {
            queue.remove(&slot.touch);
            if queue.is_empty() {
                self.queues.remove(&key);
            }
        }
        self.held.remove(&slot.touch);
    }
}
