//! Events.

use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts from 1 since the balancer started, without gaps.
    pub id: u64,
    /// When it happened, milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What happened, a short name: `guest_registered`, `limits_changed`, `target_changed`, ... The `vmm` processes
    /// send events of their own, so the set is open.
    pub kind: String,
    /// The guest it concerns; `null` if none.
    pub guest: Option<String>,
    /// The container it concerns; `null` if none.
    pub container: Option<ContainerPath>,
    /// One sentence.
    pub detail: String,
}

/// Which events.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// `false` for a JSON array of the events that are kept, instead of a stream.
    pub follow: Option<bool>,
    /// Only events after this one. The header `Last-Event-ID` has the same meaning and takes precedence.
    pub after: Option<u64>,
}
