//! What the policy says.

use super::budget::Budget;
use super::memory::{GuestMemory, HostMemory};
use super::observation::GuestView;
use super::reason::Reason;
use super::stress::Stress;
use protocol::bytes::Human;
use protocol::path::ContainerPath;
use serde::Serialize;
use utoipa::ToSchema;

/// A target for each guest, in the order of the observation, and what could not be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Targets.
    pub targets: Vec<GuestTarget>,
    /// Containers whose guests need more than their limit permits.
    pub shortfalls: Vec<Shortfall>,
    /// What guests may hold together; `None` where nothing is known of the host.
    pub budget: Option<Budget>,
    /// What to remember of the host.
    pub memory: HostMemory,
    /// The guest to be ended, by its place in the observation, because the host has next to nothing left.
    pub victim: Option<usize>,
    /// Guests that are to stand still as long as they are named here, by their places in the observation.
    pub paused: Vec<usize>,
}

/// What a guest may hold of its RAM. Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestTarget {
    /// The target.
    pub target_bytes: u64,
    /// Its share: where the target goes when others gave what they were asked for.
    pub share_bytes: u64,
    /// What it cannot be asked to go below.
    pub floor_bytes: u64,
    /// What its programs use.
    pub used_bytes: u64,
    /// That and some headroom.
    pub need_bytes: u64,
    /// What it needs and its page cache.
    pub want_bytes: u64,
    /// What it can hold at most.
    pub most_bytes: u64,
    /// What it may be using at this moment.
    pub held_bytes: u64,
    /// Why.
    pub reason: Reason,
    /// How short of memory it is by its last statistics.
    pub stress: Stress,
    /// It is to be asked again although it was asked for the same before.
    pub ask_again: bool,
    /// What to remember of it.
    pub memory: GuestMemory,
}

impl Plan {
    /// True if somebody is to grow once others gave what they were asked for.
    #[must_use]
    pub fn somebody_waits(&self) -> bool {
        self.targets.iter().any(|target| target.reason.waits())
    }
}

impl GuestTarget {
    /// True if it is more than what the guest may hold by its last target.
    #[must_use]
    pub fn grows(&self, view: &GuestView) -> bool {
        view.memory.target_bytes.is_some_and(|last| self.target_bytes > last)
    }
}

/// A limit that is smaller than the floors of the guests under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
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
        write!(f, "The guests in {container} need {needed}, and {budget} is what they may use")
    }
}

/// Hysteresis: a change below this is not worth an exchange with the guest. Bytes.
pub const CHANGE_BYTES_MIN: u64 = 1 << 20;

/// True if a target differs enough from the one that was sent last.
#[must_use]
pub fn is_worth_sending(sent_bytes: Option<u64>, target_bytes: u64) -> bool {
    sent_bytes.is_none_or(|sent| sent.abs_diff(target_bytes) >= CHANGE_BYTES_MIN)
}
