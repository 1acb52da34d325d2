//! Changes: how one is made, what it would do, and its answer.

use policy::Shortfall;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// How a change is made.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ChangeQuery {
    /// Answer with what the change would do, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a change would do; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PlanObject)]
pub struct Preview {
    /// Targets that would change.
    pub targets: Vec<PlannedTarget>,
    /// Limits that would be smaller than the floors of the guests under them.
    pub shortfalls: Vec<Shortfall>,
}

/// A target that would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedTarget {
    /// The guest.
    pub guest: String,
    /// Its target now, bytes; `null` if it has none yet.
    pub now_bytes: Option<u64>,
    /// Its target right after the change, bytes.
    pub target_bytes: u64,
    /// Its target once other guests have released what they were asked for, bytes.
    pub share_bytes: u64,
    /// The rule that would decide, a word.
    pub rule: String,
    /// The rule as a sentence.
    pub reason: String,
}

/// The answer to a change: the thing as it is now, or with `dry_run=true` what the change would do. The request says
/// which.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Changed<T> {
    /// The thing, changed.
    Done(Box<T>),
    /// With `dry_run=true`: what would change.
    Previewed(Preview),
}
