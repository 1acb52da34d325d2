//! Static page ownership: who touches a frame first pays for it until it is freed; other users pay nothing.
//!
//! Source: CKRM's memory controller (`Documentation/ckrm/mem_rc.design`, 2005): "When a page is added to the active or
//! inactive list, the class that the task belongs to is charged for the page usage", and credited when it is deleted.
//!
//! **Hand-over.** Read literally, "until it is freed" charges somebody for ever who left a page that others use. CKRM
//! charged the richest of the others then. Here the owner is always the earliest of those who map the frame; if nobody
//! maps it, the last one who did pays until it is freed. So a container is never charged for what others alone use.
//!
//! Known attack: **free-riding**. Who waits until others touched the shared pages uses them for nothing. The hand-over
//! adds the timed unshare (see `partial.rs`), against which the same grace helps.

use super::ledger::Ledger;
use super::users::Share;
use super::{UNITS_PER_FRAME, User};
use std::num::NonZeroU64;

/// Static page ownership of an empty host. With `grace`, a half-life in milliseconds, what is handed over counts by and by.
#[must_use]
pub fn static_ownership(grace: Option<NonZeroU64>) -> Ledger {
    Ledger::new(first_pays, grace)
}

/// Users are in the order in which they came.
fn first_pays(users: &[User]) -> Vec<Share> {
    vec![(users[0].container, UNITS_PER_FRAME)]
}
