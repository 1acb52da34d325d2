//! Which container is charged for the host's page cache of a file that one or more guests have as a disk.
//!
//! What is cached of a file is a claim of each guest's `vmm`. Guests of one file read it at different times, so the
//! claims differ. No claim may cost another container: each is charged at most for its own claim, and all together
//! for the largest claim.
//!
//! ```text
//!   claims   a |===========     |   static, zones   in the order of registration: a is charged its claim, b nothing,
//!            b |======          |                   c what exceeds the claim of a
//!            c |================|   partial         the first layer in thirds, the second in halves to a and c,
//!               1st  | 2nd |3rd                     the third to c alone
//! ```
//!
//! With equal claims the first guest is charged for all under static and zones, and each container for an equal part
//! under partial. Under zones a charge is whole zones. Under RSS nothing is charged: page cache is not mapped
//! (`rss.rs`).

use super::System;
use protocol::bytes::BLOCK_BYTES;

/// What a guest claims to be cached of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheClaim {
    /// Owner id of the container that is charged for the guest.
    pub owner: u16,
    /// Cached bytes of the file.
    pub bytes: u64,
}

impl System {
    /// The charge for each claim, bytes; the claims are those of one file, in the order in which the guests
    /// registered. The charge of a container under partial is at its first guest.
    #[must_use]
    pub fn divide_cache(self, claims: &[CacheClaim]) -> Vec<u64> {
        match self {
            Self::Rss => vec![0; claims.len()],
            Self::Static => in_turn(claims),
            Self::Zones => {
                in_turn(claims).into_iter().map(|bytes| bytes.next_multiple_of(BLOCK_BYTES)).collect()
            }
            Self::Partial => by_layers(claims),
        }
    }
}

/// Each is charged for what exceeds the claims before it.
fn in_turn(claims: &[CacheClaim]) -> Vec<u64> {
    let mut paid = 0;
    let pay = |claim: &CacheClaim| {
        let beyond = claim.bytes.saturating_sub(paid);
        paid += beyond;
        beyond
    };
    claims.iter().map(pay).collect()
}

/// Each container is charged an equal part of each layer that it claims.
fn by_layers(claims: &[CacheClaim]) -> Vec<u64> {
    // The first claim of each container stands for it, with its largest.
    let mut containers: Vec<(usize, u64)> = vec![];
    for (index, claim) in claims.iter().enumerate() {
        match containers.iter_mut().find(|(first, _)| claims[*first].owner == claim.owner) {
            Some((_, largest)) => *largest = claim.bytes.max(*largest),
            None => containers.push((index, claim.bytes)),
        }
    }
    let mut tops: Vec<u64> = containers.iter().map(|(_, largest)| *largest).collect();
    tops.sort_unstable();
    tops.dedup();
    let (mut paid, mut below) = (vec![0; claims.len()], 0);
    for top in tops {
        let payers = containers.iter().filter(|(_, largest)| *largest >= top);
        let count = payers.clone().count() as u64;
        let (part, remainder) = ((top - below) / count, (top - below) % count);
        // Bytes that cannot be divided go to the earliest containers, one each.
        for (place, (first, _)) in (0..).zip(payers) {
            paid[*first] += part + u64::from(place < remainder);
        }
        below = top;
    }
    paid
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn claims(of: &[(u16, u64)]) -> Vec<CacheClaim> {
        of.iter().map(|(owner, bytes)| CacheClaim { owner: *owner, bytes: *bytes }).collect()
    }

    #[test]
    fn a_file_of_one_guest_is_charged_to_its_container() {
        let one = claims(&[(7, 3 * MIB)]);
        let costs = System::ALL.map(|system| system.divide_cache(&one)[0] / MIB);
        assert_eq!(costs, [4, 3, 3, 0], "zones, static, partial, rss");
    }

    #[test]
    fn a_shared_file_is_charged_to_the_first_container_or_divided() {
        let shared = claims(&[(7, 12), (8, 12), (7, 12), (9, 12)]);
        assert_eq!(System::Static.divide_cache(&shared), [12, 0, 0, 0]);
        assert_eq!(System::Zones.divide_cache(&shared), [BLOCK_BYTES, 0, 0, 0]);
        assert_eq!(
            System::Partial.divide_cache(&shared),
            [4, 4, 0, 4],
            "two guests of a container count once"
        );
        assert_eq!(System::Partial.divide_cache(&claims(&[(1, 11), (2, 11), (3, 11)])), [4, 4, 3]);
    }

    #[test]
    fn a_guest_that_claims_more_than_others_is_charged_for_the_excess_alone() {
        let differ = claims(&[(1, 30), (2, 12), (3, 100)]);
        assert_eq!(System::Static.divide_cache(&differ), [30, 0, 70]);
        assert_eq!(System::Partial.divide_cache(&differ), [4 + 9, 4, 4 + 9 + 70]);
    }

    proptest! {
        /// The charges sum to the largest claim, a container is charged at most for its claim, and no claim costs
        /// another container.
        #[test]
        fn charges_sum_to_the_file_and_no_claim_costs_another_container(
            of in prop::collection::vec((1u16..6, 0u64..1 << 40), 1..12),
            more in 0u64..1 << 50,
        ) {
            let all = claims(&of);
            let largest = all.iter().map(|claim| claim.bytes).max().unwrap_or(0);
            let inside = |paid: &[u64], owner: u16| -> u64 {
                all.iter().zip(paid).filter(|(claim, _)| claim.owner == owner).map(|(_, bytes)| bytes).sum()
            };
            for system in [System::Static, System::Partial, System::Zones] {
                let paid = system.divide_cache(&all);
                let sum = paid.iter().sum::<u64>();
                let slack = if system == System::Zones { all.len() as u64 * BLOCK_BYTES } else { 0 };
                prop_assert!((largest..=largest + slack).contains(&sum), "{system:?}: {sum} of {largest}");
                // The last guest lies.
                let mut lied = all.clone();
                let liar = lied.last_mut().expect("at least one");
                liar.bytes += more;
                let liar = *liar;
                let after = system.divide_cache(&lied);
                for owner in 1..6 {
                    let most = all.iter().filter(|claim| claim.owner == owner).map(|claim| claim.bytes).max();
                    prop_assert!(inside(&paid, owner) <= most.unwrap_or(0) + slack);
                    // Bytes that cannot be divided may go to another one: fewer than there are layers.
                    let rounding = all.len() as u64;
                    prop_assert!(
                        owner == liar.owner || inside(&after, owner) <= inside(&paid, owner) + rounding,
                        "{system:?}: {owner} pays {} instead of {}", inside(&after, owner), inside(&paid, owner)
                    );
                }
            }
            prop_assert_eq!(System::Rss.divide_cache(&all).iter().sum::<u64>(), 0);
        }
    }
}
