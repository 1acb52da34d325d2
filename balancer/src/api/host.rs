//! `/v1/host`, `/v1/version`.

use super::Shared;
use crate::objects::{HostObject, Version};
use axum::Json;
use axum::extract::State;

/// The host and the sums over its guests.
#[utoipa::path(get, path = "/v1/host", operation_id = "get_host",
    responses((status = 200, description = "The host.", body = HostObject)))]
pub(super) async fn host(State(balancer): Shared) -> Json<HostObject> {
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
