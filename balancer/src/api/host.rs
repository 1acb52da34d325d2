//! `/v1/host`, `/v1/version`.

use crate::state::{Balancer, HostObject};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Versions of a balancer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Of the program.
    pub version: String,
    /// Of what it speaks with guests.
    pub protocol_version: u32,
    /// Of the frame tables it reads.
    pub frame_table_version: u32,
    /// Of its journal.
    pub journal_version: u64,
}

/// The host and the sums over its guests.
#[utoipa::path(get, path = "/v1/host", operation_id = "get_host",
    responses((status = 200, description = "The host.", body = HostObject)))]
pub(super) async fn host(State(balancer): State<Arc<Balancer>>) -> Json<HostObject> {
    Json(balancer.host())
}

/// Versions of this balancer.
#[utoipa::path(get, path = "/v1/version", operation_id = "get_version",
    responses((status = 200, description = "The versions.", body = Version)))]
pub(super) async fn version() -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").into(),
        protocol_version: protocol::message::PROTOCOL_VERSION,
        frame_table_version: protocol::frames::VERSION,
        journal_version: crate::journal::JOURNAL_VERSION,
    })
}
