//! The objects of the REST API: everything that a client sends or receives. The state builds them, the API serves them,
//! the client returns them, and the command line and the tests read them.
//!
//! | file | routes |
//! |---|---|
//! | `host` | `/v1/host`, `/v1/version` |
//! | `container` | `/v1/containers` |
//! | `guest`, `attach` | `/v1/guests` |
//! | `frames` | `/v1/guests/{id}/frames` |
//! | `pool`, `binding` | `/v1/pool`, `/v1/bindings` |
//! | `policy` | `/v1/policy`, `/v1/explain` |
//! | `preview` | every change with `dry_run=true` |
//! | `event` | `/v1/events` |
//! | `problem` | every refusal |
//!
//! Requests refuse fields that they do not know: a misspelt limit must not be ignored. Answers accept them: a client
//! may be older than the balancer.

#![forbid(unsafe_code)]

mod attach;
mod binding;
mod container;
mod event;
mod frames;
mod guest;
mod host;
mod policy;
mod pool;
mod preview;
mod problem;

pub use self::attach::{Detached, GuestPost};
pub use self::binding::{BindingObject, BindingPut, BindingQuery};
pub use self::container::{ContainerObject, ObjectUsage, ObjectsObject};
pub use self::event::{Event, EventsQuery};
pub use self::frames::{FrameSource, FramesObject, FramesQuery, SourceObject};
pub use self::guest::{Charges, GuestObject, GuestPatch, MergeObject, OutOfMemoryState, RunState};
pub use self::host::{HostObject, Version, WaitingObject};
pub use self::policy::{ContainerExplanation, KnobsPatch, PolicyObject};
pub use self::pool::{
    PoolGuestObject, PoolImageObject, PoolObject, PoolPayerObject, PoolQuery, PoolShortfall, SharerObject,
};
pub use self::preview::{ChangeQuery, Changed, PlannedTarget, Preview};
pub use self::problem::{Problem, Reason};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
#[path = "objects_test.rs"]
mod tests;
