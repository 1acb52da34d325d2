//! `/openapi.json`.

use super::problem::Problem;
use super::{containers, events, guests, host, policy};
use axum::Json;
use utoipa::OpenApi;

/// The OpenAPI document, made from the handlers.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "balancer", description = "Memory limits of virtual machines that are used as containers."),
    paths(
        host::host,
        host::version,
        containers::list,
        containers::get_root,
        containers::patch_root,
        containers::get,
        containers::put,
        containers::patch,
        containers::delete,
        guests::list,
        guests::get,
        guests::patch,
        guests::frames,
        policy::explain_guest,
        policy::explain_root,
        policy::explain_container,
        policy::get,
        policy::patch,
        policy::observation,
        events::events,
        openapi
    ),
    components(schemas(Problem))
)]
pub(super) struct Document;

/// This document.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, body = Object)))]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
