//! `POST /v1/guests` and `DELETE /v1/guests/{id}`: a guest that another program started is attached and detached.

use super::Shared;
use super::body::Json as Body;
use super::query::Name;
use crate::objects::{Detached, GuestObject, GuestPost, Problem};
use crate::sessions::{self, Attach, attach_name};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use protocol::limits::LimitsPatch;
use protocol::path::ContainerPath;

/// Attach a QEMU guest that runs already, by its QMP socket, without a restart.
#[utoipa::path(post, path = "/v1/guests", operation_id = "attach_guest", request_body = GuestPost,
    responses((status = 201, description = "The guest.", body = GuestObject), (status = 409)))]
pub(super) async fn attach(
    State(balancer): Shared,
    Body(post): Body<GuestPost>,
) -> Result<(StatusCode, Json<GuestObject>), Problem> {
    let refused = |status: StatusCode, field: &str, value: &str, bound: String| {
        let detail = format!("{field} is {value:?}, but {bound}");
        Problem::new(status, "field", "A field is refused", detail).of_field(field, value, bound)
    };
    let wrong =
        |field: &str, value: &str, bound| refused(StatusCode::UNPROCESSABLE_ENTITY, field, value, bound);
    if !post.qmp.is_absolute() {
        return Err(wrong("qmp", &post.qmp.to_string_lossy(), "must be an absolute path".into()));
    }
    let is_named = post.name.is_some();
    let name = post.name.unwrap_or_else(|| attach_name(&post.qmp));
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !plain || name.is_empty() || name.len() > 64 || format!("/{name}").parse::<ContainerPath>().is_err() {
        // The name of a socket's file is not what the client wrote.
        let status = if is_named { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::CONFLICT };
        return Err(refused(status, "name", &name, "must be 1 to 64 letters, digits and -_.".into()));
    }
    if let Some(limit) = &post.limit
        && let Err(error) = limit.parse::<LimitsPatch>()
    {
        let is_conflict = error.is_conflict();
        let status = if is_conflict { StatusCode::CONFLICT } else { StatusCode::UNPROCESSABLE_ENTITY };
        return Err(refused(status, "limit", limit, format!("must be limits: {error}")));
    }
    let container = post.container.map(String::from);
    let attach = Attach { qmp: post.qmp, name, container, limit: post.limit };
    Ok((StatusCode::CREATED, Json(sessions::attach(&balancer, attach).await?)))
}

/// Detach a guest that was attached: its balloon and its polling interval become what they were, and it continues to
/// run.
#[utoipa::path(delete, path = "/v1/guests/{id}", operation_id = "detach_guest", params(("id" = String, Path,
    description = "The guest's name")),
    responses((status = 200, description = "How it was left.", body = Detached), (status = 404), (status = 409),
        (status = 504)))]
pub(super) async fn detach(State(balancer): Shared, Name(id): Name) -> Result<Json<Detached>, Problem> {
    let detail = sessions::detach(&balancer, &id).await?;
    Ok(Json(Detached { guest: id, detail }))
}
