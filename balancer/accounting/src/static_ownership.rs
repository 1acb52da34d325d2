//! Static page ownership: the container that touches a frame first is charged for it until it is freed; other users
//! are charged nothing.
//!
//! Source: CKRM's memory controller (`Documentation/ckrm/mem_rc.design`, 2005): "When a page is added to the active
//! or inactive list, the class that the task belongs to is charged for the page usage", and credited when it is
//! deleted.
//!
//! **Hand-over.** Read literally, "until it is freed" would charge a container forever for a page that it no longer
//! uses and others do. CKRM then charged the richest of the others. Here the owner is always the earliest of those
//! that map the frame; if it is not mapped, the last one that mapped it is charged until it is freed. So a container
//! is never charged for pages that only others use.
//!
//! Known attack: **free-riding**. A container that waits until others touched the shared pages uses them without a
//! charge. The hand-over adds the timed unshare (see `partial.rs`), against which the same grace helps.

use super::ledger::Ledger;
use super::users::Share;
use super::{UNITS_PER_FRAME, User};
use std::num::NonZeroU64;

/// Static page ownership of an empty host. With `grace`, a half-life in milliseconds, charges that are handed over
/// count gradually.
#[must_use]
pub fn static_ownership(grace: Option<NonZeroU64>) -> Ledger {
    Ledger::new(first_user, grace)
}

/// Users are in their order of arrival.
fn first_user(users: &[User]) -> Vec<Share> {
    vec![(users[0].container, UNITS_PER_FRAME)]
}
