//! The outcome of a decision.

pub(crate) mod explain;
pub(crate) mod reason;
mod remedy;

use crate::guest::stress::Stress;
use crate::host::budget::Budget;
use crate::observation::guest::GuestView;
use crate::observation::memory::{GuestMemory, HostMemory};
use protocol::bytes::Human;
use protocol::path::ContainerPath;
use reason::Reason;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Hysteresis: a change below this is not worth a message to the guest. Bytes.
pub const CHANGE_BYTES_MIN: u64 = 1 << 20;

/// A target for each guest, in the order of the observation, and what could not be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Targets.
    pub targets: Vec<GuestTarget>,
    /// Containers whose guests need more than their limit permits.
    pub shortfalls: Vec<Shortfall>,
    /// What guests may hold together; `None` if nothing is known of the host.
    pub budget: Option<Budget>,
    /// What to remember of the host.
    pub memory: HostMemory,
    /// The guest to be killed because the host has next to nothing left, by its index in the observation.
    pub victim: Option<usize>,
    /// Guests that are paused as long as they are listed here, by their indexes in the observation.
    pub paused: Vec<usize>,
}

/// What a guest may hold of its RAM. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestTarget {
    /// The target.
    pub target_bytes: u64,
    /// Its share: where the target goes once others released what they were asked for.
    pub share_bytes: u64,
    /// It cannot be asked to go below this.
    pub floor_bytes: u64,
    /// What its programs use.
    pub used_bytes: u64,
    /// What its programs use and some headroom.
    pub need_bytes: u64,
    /// What it needs and its page cache.
    pub demand_bytes: u64,
    /// What it can hold at most.
    pub ceiling_bytes: u64,
    /// What it may be using at this moment.
    pub held_bytes: u64,
    /// Why it has this target.
    pub reason: Reason,
    /// How short of memory it is by its last statistics.
    pub stress: Stress,
    /// It is to be asked again although its target did not change.
    pub ask_again: bool,
    /// What to remember of it.
    pub memory: GuestMemory,
}

impl Plan {
    /// True if a guest is to grow once others released what they were asked for.
    #[must_use]
    pub fn any_waits(&self) -> bool {
        self.targets.iter().any(|target| target.reason.waits())
    }
}

impl GuestTarget {
    /// True if it is more than the last target of the guest.
    #[must_use]
    pub fn grows(&self, view: &GuestView) -> bool {
        view.memory.target_bytes.is_some_and(|last| self.target_bytes > last)
    }
}

/// A limit that is smaller than the floors of the guests under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shortfall {
    /// The container.
    #[schema(value_type = String)]
    pub container: ContainerPath,
    /// What may be used in it, bytes.
    pub budget_bytes: u64,
    /// What its guests need at least, bytes.
    pub needed_bytes: u64,
}

impl std::fmt::Display for Shortfall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (container, budget, needed) =
            (&self.container, Human(self.budget_bytes), Human(self.needed_bytes));
        write!(f, "The guests in {container} need {needed}, but may use only {budget}")
    }
}

/// True if a target differs enough from the one that was sent last.
#[must_use]
pub fn is_worth_sending(sent_bytes: Option<u64>, target_bytes: u64) -> bool {
    sent_bytes.is_none_or(|sent| sent.abs_diff(target_bytes) >= CHANGE_BYTES_MIN)
}
