//! Guests that are attached and detached.

use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use utoipa::ToSchema;

/// A QEMU guest that runs already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestPost {
    /// Unix socket of a QMP monitor that no other program uses, as an absolute path.
    #[schema(value_type = String)]
    pub qmp: PathBuf,
    /// Its name in the balancer; the name of the socket's file unless given.
    #[serde(default)]
    pub name: Option<String>,
    /// The container that it is attached to; created if it does not exist. `/NAME` unless given.
    #[serde(default)]
    pub container: Option<ContainerPath>,
    /// Limits of that container as the command line takes them: `2G`, `max=2G,low=512M`.
    #[serde(default)]
    pub limit: Option<String>,
}

/// A guest that was detached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Detached {
    /// The guest.
    pub guest: String,
    /// How it was left, one sentence.
    pub detail: String,
}
