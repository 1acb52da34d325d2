//! Partial page ownership: every container that maps a frame pays a part of it; several guests of one container count
//! once. A frame that nobody maps is the pool's.
//!
//! Source: the beancounters' page ownership ("RSS fractions accounting", OpenVZ wiki; `kernel/bc/rss_pages.c`). Both of
//! its forms are here:
//!
//! - [`Shares::Exact`]: each of n containers pays 1/n. In fixed point n does not always divide a frame: **the remainder,
//!   less than n units, is the pool's**, so that the parts sum to the frame exactly.
//! - [`Shares::PowerOfTwo`]: each pays 2^-k or 2^-(k+1) of it, where 2^k is the largest power that is not above n. A
//!   newcomer takes half of what the earliest of those pays who pay most, and touches nobody else, where 1/n would change
//!   what everybody pays:
//!
//! ```text
//!   n = 1   1
//!   n = 2   1/2 1/2
//!   n = 3   1/4 1/2 1/4
//!   n = 4   1/4 1/4 1/4 1/4
//!   n = 5   1/8 1/4 1/4 1/4 1/8
//! ```
//!
//! Known attack: the **timed unshare**. Who leaves a shared page raises what the others pay, at a time of its choosing.
//! With a grace (`inherited.rs`) such a rise counts against a limit only by and by.

use super::ledger::Ledger;
use super::users::{NOBODY, Share};
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

/// Partial page ownership of an empty host. With `grace`, a half-life in milliseconds, what others did to a charge counts
/// by and by.
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
    for user in users.iter().filter(|user| user.guest != NOBODY) {
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
