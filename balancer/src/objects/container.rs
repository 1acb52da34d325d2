//! Containers.

use policy::Shortfall;
use protocol::limits::Limits;
use protocol::objects::PerObjectKind;
use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A container.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ContainerObject {
    /// Its path.
    pub path: ContainerPath,
    /// Its limits, next to the other fields.
    #[serde(flatten)]
    pub limits: Limits,
    /// True if it was created for a guest and is removed with the last one.
    pub transient: bool,
    /// Its id in frame tables.
    pub owner: u16,
    /// Trust domain of its guests, wherever that was set: pages of images are shared only inside one domain. Names that
    /// begin with `=` are those of the balancer, which cannot be set.
    pub trust_domain: String,
    /// Bytes that it and the containers inside it are charged by the host's accounting system.
    pub usage_bytes: u64,
    /// Bytes by which `usage_bytes` may be too small.
    pub usage_error_bytes: u64,
    /// Age of the oldest reading in `usage_bytes`, milliseconds; `null` without guests.
    pub usage_age_ms: Option<u64>,
    /// Sum of the targets of its guests, bytes.
    pub target_bytes: u64,
    /// Objects of the kernel that the guests in it and in the containers inside it have.
    #[schema(inline)]
    pub objects: ObjectsObject,
    /// Guests directly in it.
    pub guests: Vec<String>,
    /// Containers directly in it.
    pub containers: Vec<ContainerPath>,
    /// What is missing for the floors of its guests; `null` if nothing is.
    pub shortfall: Option<Shortfall>,
}

/// Objects of all kinds.
pub type ObjectsObject = PerObjectKind<ObjectUsage>;

/// Objects of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectUsage {
    /// How many the guests in the container and in those inside it have. Of descriptors and threads: the larger of what
    /// their `vmm` processes reported and what the kernel counts.
    pub used: u64,
    /// The most they may have; `null` for no limit.
    pub max: Option<u32>,
    /// True if they have more.
    pub exceeded: bool,
    /// Age of the oldest count, milliseconds; `null` for kinds that are known and not counted, and without guests.
    pub age_ms: Option<u64>,
}
