//! Guests that charge containers which they are not attached to.
//!
//! Such a guest counts as a whole under the limits of its own container; what it charges to another container counts
//! under the limits of that one as well. The guest chooses which pages it releases, so the policy can only ask it to
//! hold less in total:
//!
//! ```text
//!   room of a container = max - what is charged there      (negative: it is over its max, by an excess)
//!
//!   the guest charges it now      the guest may grow by the room           target <= held + room
//!   the guest charged it before   it releases its part of the excess       target <= held - excess * part
//! ```
//!
//! As the guest grows, the room falls by what it takes: the ceiling does not move.

use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};

/// The most that a guest may hold, because of a container that it charges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// The container.
    pub container: ContainerPath,
    /// Its `max`, bytes.
    pub max_bytes: u64,
    /// What the guest may hold, bytes.
    pub bytes: u64,
}

/// What a guest charges to a container that its own container is not inside of, and what all guests do. Bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charged {
    /// The container.
    pub container: ContainerPath,
    /// Its `max`.
    pub max_bytes: u64,
    /// What the container and those inside it are charged in total.
    pub usage_bytes: u64,
    /// The part that is charged by guests that are not inside it.
    pub foreign_bytes: u64,
    /// This guest's part of that.
    pub own_bytes: u64,
    /// True if what the guest touches now is charged to it.
    pub now: bool,
}

/// The lowest ceiling of a guest that holds this much.
#[must_use]
pub fn ceiling(held_bytes: u64, charged: impl IntoIterator<Item = Charged>) -> Option<Ceiling> {
    let ceilings = charged.into_iter().filter_map(|charged| {
        let room = charged.max_bytes.saturating_sub(charged.usage_bytes);
        let excess = charged.usage_bytes.saturating_sub(charged.max_bytes);
        if excess == 0 && !charged.now {
            return None;
        }
        // Guests from outside make way for guests inside, each by its part of what they charge.
        let foreign = charged.foreign_bytes.max(charged.own_bytes).max(1);
        let part = u128::from(excess.min(foreign)) * u128::from(charged.own_bytes) / u128::from(foreign);
        let bytes = held_bytes
            .saturating_add(room)
            .saturating_sub(u64::try_from(part).expect("no larger than the excess"));
        Some(Ceiling { container: charged.container, max_bytes: charged.max_bytes, bytes })
    });
    ceilings.min_by_key(|ceiling| ceiling.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charged(max: u64, usage: u64, foreign: u64, own: u64, now: bool) -> Charged {
        Charged {
            container: "/x".parse().unwrap(),
            max_bytes: max,
            usage_bytes: usage,
            foreign_bytes: foreign,
            own_bytes: own,
            now,
        }
    }

    #[test]
    fn a_guest_grows_by_the_room_of_the_container_it_charges() {
        for (held, usage, own) in [(100, 0, 0), (150, 50, 50), (164, 64, 64)] {
            let ceiling = ceiling(held, [charged(64, usage, own, own, true)]).unwrap();
            assert_eq!(ceiling.bytes, 164, "the ceiling does not move while the guest grows");
        }
    }

    #[test]
    fn an_excess_is_divided_by_what_each_guest_charges() {
        let one = |own| ceiling(200, [charged(100, 130, 90, own, false)]).map(|ceiling| ceiling.bytes);
        assert_eq!((one(60), one(30), one(0)), (Some(180), Some(190), Some(200)));
        // Guests from outside do not make way for an excess that the guests inside cause.
        let all = ceiling(200, [charged(100, 500, 40, 40, false)]).unwrap();
        assert_eq!(all.bytes, 160);
    }

    #[test]
    fn a_guest_that_charged_a_container_within_its_limit_before_has_no_ceiling() {
        assert_eq!(ceiling(200, [charged(100, 100, 90, 90, false)]), None);
        let both = [charged(100, 90, 90, 90, true), charged(50, 60, 10, 10, false)];
        assert_eq!(ceiling(200, both).unwrap().bytes, 190);
        assert_eq!(ceiling(u64::MAX, [charged(u64::MAX, 0, 0, 0, true)]).unwrap().bytes, u64::MAX);
    }
}
