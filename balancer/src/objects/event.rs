//! Events.

use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts up, also over restarts of the balancer: its journal keeps the count. There are no gaps while it runs, and
    /// there may be one after it was killed.
    pub id: u64,
    /// When it happened, milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What happened, a short name: `guest_registered`, `limits_changed`, `target_changed`, ... The `vmm` processes
    /// send events of their own, so the set is open. `events_missed` stands for events that are not kept any more.
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
    /// Only events after this one; 0 for all that are kept. The header `Last-Event-ID` has the same meaning and takes
    /// precedence. If events after this one are not kept any more, `events_missed` comes first, with the number of the
    /// last of them.
    pub after: Option<u64>,
}
