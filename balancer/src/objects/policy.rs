//! The policy: its knobs, and why a guest has its target.

use policy::{Budget, Explanation, Knobs, OomPolicy};
use protocol::patch::null_or_value;
use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The policy.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PolicyObject {
    /// Its knobs, next to the other fields.
    #[serde(flatten)]
    pub knobs: Knobs,
    /// What guests may hold together, by the last plan.
    pub budget: Option<Budget>,
    /// How long ago tasks of the host stalled for memory, milliseconds; `null` if they did not, or where the kernel
    /// does not count stalls.
    pub stalled_age_ms: Option<u64>,
}

/// A change of the knobs; absent fields stay as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KnobsPatch {
    /// New reserve, bytes; `null` for a sixteenth of the host's memory, at most 4 GiB.
    #[serde(default, deserialize_with = "null_or_value", skip_serializing_if = "Option::is_none")]
    pub reserve_bytes: Option<Option<u64>>,
    /// New idle tax, percent, 0 to 99.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_tax_percent: Option<u32>,
    /// New time between two ticks, milliseconds, 10 to 60000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// New policy for a host that is about to run out of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_policy: Option<OomPolicy>,
}

impl KnobsPatch {
    /// These knobs with the change; bounds are not checked.
    #[must_use]
    pub fn on(&self, knobs: Knobs) -> Knobs {
        Knobs {
            reserve_bytes: self.reserve_bytes.unwrap_or(knobs.reserve_bytes),
            idle_tax_percent: self.idle_tax_percent.unwrap_or(knobs.idle_tax_percent),
            interval_ms: self.interval_ms.unwrap_or(knobs.interval_ms),
            oom_policy: self.oom_policy.unwrap_or(knobs.oom_policy),
        }
    }
}

/// Why the guests of a container have their targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContainerExplanation {
    /// The container.
    pub path: ContainerPath,
    /// Sum of the targets inside it, bytes.
    pub target_bytes: u64,
    /// Sum of what the guests inside it need, bytes.
    pub need_bytes: u64,
    /// The guests inside it, each explained.
    pub guests: Vec<Explanation>,
}
