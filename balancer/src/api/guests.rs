//! `/v1/guests`.

use super::problem::Problem;
use super::query::Params;
use crate::engine::{Engine, FramesObject, GuestObject};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// What is asked of a frame table.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FramesQuery {
    /// Compare the table with the kernel first unless that was done at most so long ago, milliseconds.
    max_age_ms: Option<u64>,
    /// Count from the summaries of 2 MiB blocks as well.
    #[serde(default)]
    blocks: bool,
    /// Count frame by frame as well, and by owner.
    #[serde(default)]
    audit: bool,
}

/// All guests.
#[utoipa::path(get, path = "/v1/guests", responses((status = 200, body = Vec<GuestObject>)))]
pub(super) async fn list(State(engine): State<Arc<Engine>>) -> Json<Vec<GuestObject>> {
    Json(engine.guests())
}

/// One guest.
#[utoipa::path(get, path = "/v1/guests/{id}", params(("id" = String, Path, description = "The guest's name")),
    responses((status = 200, body = GuestObject), (status = 404, body = Problem)))]
pub(super) async fn get(
    State(engine): State<Arc<Engine>>,
    Path(id): Path<String>,
) -> Result<Json<GuestObject>, Problem> {
    Ok(Json(engine.guest(&id)?))
}

/// A guest's frames by state.
#[utoipa::path(get, path = "/v1/guests/{id}/frames", params(("id" = String, Path, description = "The guest's name"), FramesQuery),
    responses((status = 200, body = FramesObject), (status = 404, body = Problem), (status = 504, body = Problem)))]
pub(super) async fn frames(
    State(engine): State<Arc<Engine>>,
    Path(id): Path<String>,
    Params(query): Params<FramesQuery>,
) -> Result<Json<FramesObject>, Problem> {
    let frames = engine.frames(&id, query.max_age_ms).await?;
    // Counting millions of entries must not hold up the daemon's one thread.
    let count = move || FramesObject::new(id, &frames, query.blocks, query.audit);
    let counted = tokio::task::spawn_blocking(count).await;
    counted.map(Json).map_err(|error| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The frames could not be counted",
            error.to_string(),
        )
    })
}
