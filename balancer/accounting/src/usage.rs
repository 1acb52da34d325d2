//! What a guest costs, from readings of its frame table and of the kernel. Where no process reports every transition,
//! the systems are applied to totals: private frames have one user, so totals by owner are all that a rule needs.

use super::System;
use protocol::bytes::{BLOCK_BYTES, FRAME_BYTES};
use std::collections::BTreeMap;

/// What is known of a guest at one moment. Bytes.
#[derive(Debug, Clone, Default)]
pub struct GuestReading {
    /// Owner id of the container it is attached to.
    pub owner: u16,
    /// Resident set of its `vmm` by the kernel; `None` when the process is gone.
    pub resident_bytes: Option<u64>,
    /// What the host holds for it in addition to the resident set: page tables. Bytes.
    pub beside_bytes: u64,
    /// What its frame table says the host holds for it.
    pub table_bytes: u64,
    /// The part of that which other containers pay: frames first touched on their account.
    pub table_elsewhere_bytes: BTreeMap<u16, u64>,
    /// The part of the resident set that the pool's own ledger charges, and what may be such pages: no guest's own
    /// memory.
    pub pool_bytes: u64,
    /// The same with pages of images that the pool does not know: which other processes map those is not known.
    pub images_bytes: u64,
    /// By how much the charge may be too small because pages that are taken for pages of images are not, or no ledger
    /// charges them.
    pub error_bytes: u64,
    /// Blocks of 2 MiB that hold at least one of its frames; `None` where they were not counted.
    pub blocks_used: Option<u64>,
    /// Guest memory that its table covers.
    pub ram_bytes: u64,
}

/// What a container is charged. Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// The charge.
    pub bytes: u64,
    /// By how much that may be too small.
    pub error_bytes: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.error_bytes = self.error_bytes.saturating_add(other.error_bytes);
    }
}

/// Costs by owner id.
pub type Usage = BTreeMap<u16, Cost>;

impl System {
    /// What a guest costs each container. A frame table is a hostile process's word: the kernel's figure counts where
    /// it is larger, and no more is charged elsewhere than the table holds.
    #[must_use]
    pub fn usage(self, reading: &GuestReading) -> Usage {
        let resident = reading.resident_bytes.unwrap_or(0);
        let bytes = |bytes| Cost { bytes, error_bytes: 0 };
        let error_bytes = reading.error_bytes;
        // What is not mapped is not part of the resident set: that is the rule of this system, and its weakness. What
        // is mapped of the pool is charged by the pool's own ledger, by this rule as well.
        if self == Self::Rss {
            let bytes = resident.saturating_sub(reading.pool_bytes);
            return [(reading.owner, Cost { bytes, error_bytes })].into();
        }
        let held = reading.table_bytes.min(reading.ram_bytes);
        // Of frames: whole blocks under zones.
        let charge = |frames_bytes: u64| match self {
            Self::Zones => bytes(frames_bytes.next_multiple_of(BLOCK_BYTES)),
            _ => bytes(frames_bytes),
        };
        let mut usage = Usage::new();
        let mut own = held;
        for (owner, elsewhere) in &reading.table_elsewhere_bytes {
            let elsewhere = own.min(*elsewhere);
            *usage.entry(*owner).or_default() += charge(elsewhere);
            own -= elsewhere;
        }
        *usage.entry(reading.owner).or_default() += charge(own);
        let blocks_bytes = usage.values().fold(0u64, |sum, cost| sum.saturating_add(cost.bytes));
        // The process in addition to the frames, and what its table hides.
        let beside = resident.saturating_sub(reading.images_bytes).saturating_sub(held);
        let beside = beside.saturating_add(reading.beside_bytes);
        *usage.entry(reading.owner).or_default() += Cost { bytes: beside, error_bytes };
        if self == Self::Zones {
            // At worst every frame is alone in its block.
            let worst = (held / FRAME_BYTES).min(reading.ram_bytes.div_ceil(BLOCK_BYTES));
            let missing = |blocks: u64| blocks.saturating_mul(BLOCK_BYTES).saturating_sub(blocks_bytes);
            *usage.entry(reading.owner).or_default() += match reading.blocks_used {
                Some(blocks) => bytes(missing(blocks.min(worst))),
                None => Cost { bytes: 0, error_bytes: missing(worst) },
            };
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn reading() -> GuestReading {
        GuestReading {
            owner: 7,
            resident_bytes: Some(110 * MIB),
            table_bytes: 101 * MIB,
            ram_bytes: 512 * MIB,
            ..Default::default()
        }
    }

    fn by_owner(system: System, reading: &GuestReading) -> Vec<(u16, u64)> {
        system.usage(reading).into_iter().map(|(owner, cost)| (owner, cost.bytes / MIB)).collect()
    }

    fn sum(system: System, reading: &GuestReading) -> Cost {
        let mut sum = Cost::default();
        system.usage(reading).into_values().for_each(|cost| sum += cost);
        sum
    }

    #[test]
    fn overhead_and_what_the_table_hides_are_its_containers() {
        assert_eq!(by_owner(System::Static, &reading()), [(7, 110)]);
        assert_eq!(by_owner(System::Partial, &reading()), [(7, 110)]);
        assert_eq!(by_owner(System::Zones, &reading()), [(7, 111)]);
        assert_eq!(by_owner(System::Rss, &reading()), [(7, 110)]);
    }

    #[test]
    fn page_tables_are_its_containers_unless_only_the_resident_set_counts() {
        let reading = GuestReading {
            beside_bytes: 3 * MIB,
            table_elsewhere_bytes: [(3, 41 * MIB)].into(),
            ..reading()
        };
        assert_eq!(by_owner(System::Static, &reading), [(3, 41), (7, 72)]);
        assert_eq!(by_owner(System::Partial, &reading), [(3, 41), (7, 72)]);
        assert_eq!(by_owner(System::Zones, &reading), [(3, 42), (7, 72)]);
        assert_eq!(by_owner(System::Rss, &reading), [(7, 110)]);
    }

    #[test]
    fn frames_stay_with_whom_they_were_charged_to() {
        let reading = GuestReading { table_elsewhere_bytes: [(3, 41 * MIB)].into(), ..reading() };
        assert_eq!(by_owner(System::Static, &reading), [(3, 41), (7, 69)]);
        assert_eq!(by_owner(System::Zones, &reading), [(3, 42), (7, 69)]);
        assert_eq!(by_owner(System::Rss, &reading), [(7, 110)]);
    }

    #[test]
    fn a_table_cannot_charge_others_more_than_it_holds() {
        let reading = GuestReading { table_elsewhere_bytes: [(3, u64::MAX)].into(), ..reading() };
        assert_eq!(by_owner(System::Static, &reading), [(3, 101), (7, 9)]);
        let reading = GuestReading { table_bytes: u64::MAX, resident_bytes: None, ..reading };
        for system in System::ALL {
            assert!(sum(system, &reading).bytes <= 512 * MIB, "{system:?}");
        }
    }

    #[test]
    fn what_the_pool_charges_is_not_charged_again() {
        let reading = GuestReading { pool_bytes: 5 * MIB, images_bytes: 5 * MIB, ..reading() };
        assert_eq!(by_owner(System::Partial, &reading), [(7, 105)]);
        assert_eq!(by_owner(System::Rss, &reading), [(7, 105)]);
    }

    #[test]
    fn pages_of_an_image_that_the_pool_does_not_know_are_an_error_bound_except_under_rss() {
        let reading =
            GuestReading { pool_bytes: 2 * MIB, images_bytes: 7 * MIB, error_bytes: 5 * MIB, ..reading() };
        assert_eq!(sum(System::Static, &reading), Cost { bytes: 103 * MIB, error_bytes: 5 * MIB });
        assert_eq!(sum(System::Rss, &reading).bytes, 108 * MIB, "each pays for all that it maps");
    }

    #[test]
    fn zones_say_how_much_they_may_miss() {
        let worst = 512 * MIB - 102 * MIB;
        assert_eq!(sum(System::Zones, &reading()), Cost { bytes: 111 * MIB, error_bytes: worst });
        let reading = GuestReading { blocks_used: Some(100), ..reading() };
        assert_eq!(sum(System::Zones, &reading), Cost { bytes: 209 * MIB, error_bytes: 0 });
    }
}
