//! Partial page ownership: every container that maps a frame is charged a part of it; several guests of one container
//! count once. A frame that is not mapped is charged to the pool.
//!
//! Source: the beancounters' page ownership ("RSS fractions accounting", OpenVZ wiki; `kernel/bc/rss_pages.c`). Both
//! of its forms are here:
//!
//! - [`Shares::Exact`]: each of n containers is charged 1/n. In fixed point n does not always divide a frame: **the
//!   remainder, less than n units, is charged to the pool**, so that the parts sum to the frame exactly.
//! - [`Shares::PowerOfTwo`]: each is charged 2^-k or 2^-(k+1) of it, where 2^k is the largest power that is not above
//!   n. A newcomer takes half of the part of one other container, the earliest of those with the largest part. All
//!   others stay the same, while 1/n would change the charge of every container:
//!
//! ```text
//!   n = 1   1
//!   n = 2   1/2 1/2
//!   n = 3   1/4 1/2 1/4
//!   n = 4   1/4 1/4 1/4 1/4
//!   n = 5   1/8 1/4 1/4 1/4 1/8
//! ```
//!
//! Known attack: the **timed unshare**. A container that stops using a shared page raises the charges of the others,
//! at a time of its choosing. With a grace (`inherited.rs`) such a rise counts against a limit only gradually.

use super::ledger::Ledger;
use super::users::{NO_GUEST, Share};
use super::{ContainerId, POOL, UNITS_PER_FRAME, User};
use std::num::NonZeroU64;

/// How a frame is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shares {
    /// Equal parts, remainder to the pool.
    Exact,
    /// Powers of two.
    PowerOfTwo,
}

/// Partial page ownership of an empty host. With `grace`, a half-life in milliseconds, changes of a charge that
/// others cause count gradually.
#[must_use]
pub fn partial(shares: Shares, grace: Option<NonZeroU64>) -> Ledger {
    let rule = match shares {
        Shares::Exact => exact,
        Shares::PowerOfTwo => power_of_two,
    };
    Ledger::new(rule, grace)
}

/// The containers that map a frame, in the order in which they came, each once.
fn payers(users: &[User]) -> Vec<ContainerId> {
    let mut payers = Vec::with_capacity(users.len());
    for user in users.iter().filter(|user| user.guest != NO_GUEST) {
        if !payers.contains(&user.container) {
            payers.push(user.container);
        }
    }
    payers
}

fn exact(users: &[User]) -> Vec<Share> {
    let payers = payers(users);
    let part = UNITS_PER_FRAME.checked_div(payers.len() as u64).unwrap_or(0);
    let remainder = UNITS_PER_FRAME - part * payers.len() as u64;
    let mut shares: Vec<Share> = payers.into_iter().map(|payer| (payer, part)).collect();
    if remainder > 0 {
        shares.push((POOL, remainder));
    }
    shares
}

fn power_of_two(users: &[User]) -> Vec<Share> {
    let payers = payers(users);
    let Some(k) = payers.len().checked_ilog2() else { return vec![(POOL, UNITS_PER_FRAME)] };
    // There are fewer than 2^16 containers, so the smallest part is still a whole number of units.
    let (whole, newcomers) = (1 << k, payers.len() - (1 << k));
    let halved = |place: usize| place < newcomers || place >= whole;
    let part = |place: usize| UNITS_PER_FRAME >> if halved(place) { k + 1 } else { k };
    payers.into_iter().enumerate().map(|(place, payer)| (payer, part(place))).collect()
}
