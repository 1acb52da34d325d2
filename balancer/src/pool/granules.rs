//! Which granules of one managed image are in memory, and which guests hold them.
//!
//! ```text
//!            begin           filled                  leave               free
//!   absent ---------> filling ------> there, held by ------> leaving ------------> absent
//!                        |            0..n guests            until nobody holds it
//!                        +-- failed --> absent
//! ```
//!
//! A guest holds a granule from the moment when it was told that it is there until it says that it does not map it any
//! more, or is gone. What tables say does not count here.

use std::collections::BTreeMap;
use std::time::Instant;

/// Where a granule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On its way from the disk.
    Filling,
    /// In memory.
    There,
    /// Whoever holds it was asked at this moment to let go.
    Leaving(Instant),
}

#[derive(Debug)]
struct Slot {
    place: Place,
    /// Guests by the order in which they registered, in the order in which they came to this granule.
    holders: Vec<u64>,
    /// Where it stands in the queues: the lower, the older.
    turn: u64,
}

/// Granules in memory, and queues of those that may go, the oldest first.
#[derive(Debug, Default)]
pub struct Granules {
    slots: BTreeMap<u64, Slot>,
    /// Those that nobody holds, and those that one guest holds alone.
    queues: BTreeMap<Option<u64>, BTreeMap<u64, u64>>,
    /// All that are held, by anybody.
    held: BTreeMap<u64, u64>,
    leaving: u64,
}

impl Granules {
    /// Where a granule is; `None` for one that is not in memory.
    #[must_use]
    pub fn place(&self, granule: u64) -> Option<Place> {
        self.slots.get(&granule).map(|slot| slot.place)
    }

    /// Granules that take room: all that are not absent.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Granules that are on their way from the disk.
    #[must_use]
    pub fn filling(&self) -> u64 {
        self.slots.values().filter(|slot| slot.place == Place::Filling).count() as u64
    }

    /// Granules whose room comes free as soon as guests answer.
    #[must_use]
    pub fn leaving(&self) -> u64 {
        self.leaving
    }

    /// Granules in memory.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.slots.keys().copied()
    }

    /// Granules that take room for guests: all but those that nobody holds.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.count() - self.queues.get(&None).map_or(0, |queue| queue.len() as u64)
    }

    /// Granules that a guest holds and nobody else.
    #[must_use]
    pub fn held_alone(&self, order: u64) -> u64 {
        self.queues.get(&Some(order)).map_or(0, |queue| queue.len() as u64)
    }

    /// The oldest that nobody holds, or that this guest holds alone: its turn and number.
    #[must_use]
    pub fn oldest(&self, holder: Option<u64>) -> Option<(u64, u64)> {
        self.queues.get(&holder)?.first_key_value().map(|(turn, granule)| (*turn, *granule))
    }

    /// The oldest that anybody holds: its turn and number.
    #[must_use]
    pub fn oldest_held(&self) -> Option<(u64, u64)> {
        self.held.first_key_value().map(|(turn, granule)| (*turn, *granule))
    }

    /// Room is taken for a granule that is absent.
    pub fn begin(&mut self, granule: u64) {
        let slot = Slot { place: Place::Filling, holders: vec![], turn: 0 };
        let before = self.slots.insert(granule, slot);
        debug_assert!(before.is_none(), "granule {granule} was there");
    }

    /// It is in memory.
    pub fn filled(&mut self, granule: u64, turn: u64) {
        self.change(granule, |slot| (slot.place, slot.turn) = (Place::There, turn));
    }

    /// A guest is told that a granule is there. A granule is as old as its last new holder.
    pub fn hold(&mut self, granule: u64, order: u64, turn: u64) {
        self.change(granule, |slot| {
            if !slot.holders.contains(&order) {
                slot.holders.push(order);
                slot.turn = turn;
            }
        });
    }

    /// Begins to let a granule go. Returns who is to be asked.
    pub fn leave(&mut self, granule: u64, now: Instant) -> Vec<u64> {
        self.change(granule, |slot| slot.place = Place::Leaving(now)).unwrap_or_default()
    }

    /// A guest does not map a granule any more. True if it held it.
    pub fn unmapped(&mut self, granule: u64, order: u64) -> bool {
        let holds = self.slots.get(&granule).is_some_and(|slot| slot.holders.contains(&order));
        if holds {
            self.change(granule, |slot| slot.holders.retain(|holder| *holder != order));
        }
        holds
    }

    /// True if a granule is to go and nobody holds it any more.
    #[must_use]
    pub fn is_free(&self, granule: u64) -> bool {
        let free = |slot: &Slot| matches!(slot.place, Place::Leaving(_)) && slot.holders.is_empty();
        self.slots.get(&granule).is_some_and(free)
    }

    /// It is absent from now on.
    pub fn free(&mut self, granule: u64) {
        self.unlist(granule);
        if let Some(slot) = self.slots.remove(&granule) {
            self.leaving -= u64::from(matches!(slot.place, Place::Leaving(_)));
        }
    }

    /// What a guest holds.
    #[must_use]
    pub fn of(&self, order: u64) -> Vec<u64> {
        let held = self.slots.iter().filter(|(_, slot)| slot.holders.contains(&order));
        held.map(|(granule, _)| *granule).collect()
    }

    /// Guests that were asked to let go before a moment and did not.
    pub fn overdue(&self, before: Instant) -> impl Iterator<Item = u64> + '_ {
        let late = move |slot: &&Slot| matches!(slot.place, Place::Leaving(since) if since < before);
        let slots = if self.leaving == 0 { None } else { Some(self.slots.values()) };
        slots.into_iter().flatten().filter(late).flat_map(|slot| slot.holders.iter().copied())
    }

    /// Changes a granule and its place in the queues; its holders afterwards.
    fn change(&mut self, granule: u64, change: impl FnOnce(&mut Slot)) -> Option<Vec<u64>> {
        self.unlist(granule);
        let slot = self.slots.get_mut(&granule)?;
        let was_leaving = matches!(slot.place, Place::Leaving(_));
        change(slot);
        let is_leaving = matches!(slot.place, Place::Leaving(_));
        self.leaving = self.leaving + u64::from(is_leaving) - u64::from(was_leaving);
        if slot.place == Place::There {
            if slot.holders.len() <= 1 {
                let queue = self.queues.entry(slot.holders.first().copied()).or_default();
                queue.insert(slot.turn, granule);
            }
            if !slot.holders.is_empty() {
                self.held.insert(slot.turn, granule);
            }
        }
        Some(slot.holders.clone())
    }

    fn unlist(&mut self, granule: u64) {
        let Some(slot) = self.slots.get(&granule).filter(|slot| slot.place == Place::There) else { return };
        let key = slot.holders.first().copied();
        if slot.holders.len() <= 1
            && let Some(queue) = self.queues.get_mut(&key)
        {
            queue.remove(&slot.turn);
            if queue.is_empty() {
                self.queues.remove(&key);
            }
        }
        self.held.remove(&slot.turn);
    }
}
