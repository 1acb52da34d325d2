//! `/v1/containers`.

use super::Shared;
use super::body::Json as Body;
use super::change::{ChangedContainer, changed, removed};
use super::query::Params;
use crate::objects::{ChangeQuery, Changed, ContainerObject, Preview, Problem};
use crate::state::Balancer;
use crate::tree::Put;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use protocol::limits::{Limits, LimitsPatch};
use protocol::path::ContainerPath;

pub(super) type Inside = Result<Path<String>, PathRejection>;

/// The path behind `/v1/containers`.
#[expect(clippy::result_large_err, reason = "once per refused request, and handlers want the problem itself")]
pub(super) fn path(path: Inside) -> Result<ContainerPath, Problem> {
    let refuse = |detail: String| {
        Problem::new(StatusCode::BAD_REQUEST, "path", "This is not the path of a container", detail)
    };
    let Path(text) = path.map_err(|error| refuse(error.body_text()))?;
    let path: ContainerPath =
        format!("/{text}").parse().map_err(|error: protocol::path::ParsePathError| {
            refuse(error.to_string()).of_field("path", error.text.clone(), error.reason.clone())
        })?;
    if path.is_root() {
        let bound = "must name a container inside the root, which is /v1/containers/";
        return Err(refuse(format!("path is {text:?}, but {bound}")).of_field("path", text, bound));
    }
    Ok(path)
}

/// All containers.
#[utoipa::path(get, path = "/v1/containers", operation_id = "list_containers",
    responses((status = 200, description = "All containers, in the order of their paths.",
        body = Vec<ContainerObject>)))]
pub(super) async fn list(State(balancer): Shared) -> Json<Vec<ContainerObject>> {
    Json(balancer.containers())
}

/// The root container: the host.
#[utoipa::path(get, path = "/v1/containers/", operation_id = "get_root_container",
    responses((status = 200, description = "The root container.", body = ContainerObject)))]
pub(super) async fn get_root(State(balancer): Shared) -> Result<Json<ContainerObject>, Problem> {
    Ok(Json(balancer.container(&ContainerPath::root())?))
}

#[expect(clippy::result_large_err, reason = "once per refused request, and handlers want the problem itself")]
fn alter(
    balancer: &Balancer,
    path: &ContainerPath,
    patch: &LimitsPatch,
    dry_run: bool,
) -> Result<Json<Changed<ContainerObject>>, Problem> {
    let changed = changed(dry_run, || balancer.preview_patch(path, patch), || balancer.patch(path, patch));
    Ok(Json(changed?))
}

/// Change limits of the root container.
#[utoipa::path(patch, path = "/v1/containers/", operation_id = "patch_root_container", params(ChangeQuery),
    request_body = LimitsPatch,
    responses((status = 200, description = "The root container as it is now; with `dry_run`, what would change.",
        body = ChangedContainer), (status = 507)))]
pub(super) async fn patch_root(
    State(balancer): Shared,
    Params(how): Params<ChangeQuery>,
    Body(patch): Body<LimitsPatch>,
) -> Result<Json<Changed<ContainerObject>>, Problem> {
    alter(&balancer, &ContainerPath::root(), &patch, how.dry_run)
}

/// One container.
#[utoipa::path(get, path = "/v1/containers/{path}", operation_id = "get_container",
    params(("path" = String, Path, description = "`web/a` for the container `/web/a`")),
    responses((status = 200, description = "The container.", body = ContainerObject), (status = 404)))]
pub(super) async fn get(State(balancer): Shared, inside: Inside) -> Result<Json<ContainerObject>, Problem> {
    Ok(Json(balancer.container(&path(inside)?)?))
}

/// Create a container that stays until it is deleted, or replace the limits of one that exists.
#[utoipa::path(put, path = "/v1/containers/{path}", operation_id = "put_container",
    params(("path" = String, Path), ChangeQuery), request_body = Limits,
    responses((status = 200, description = "The container as it is now; with `dry_run`, what would change.",
        body = ChangedContainer),
        (status = 201, description = "The container, just created.", body = ContainerObject), (status = 409),
        (status = 507)))]
pub(super) async fn put(
    State(balancer): Shared,
    inside: Inside,
    Params(how): Params<ChangeQuery>,
    Body(limits): Body<Limits>,
) -> Result<(StatusCode, Json<Changed<ContainerObject>>), Problem> {
    let (path, mut status) = (path(inside)?, StatusCode::OK);
    let put = || {
        let (done, object) = balancer.put(&path, limits.clone())?;
        if done == Put::Created {
            status = StatusCode::CREATED;
        }
        Ok(object)
    };
    let changed = changed(how.dry_run, || balancer.preview_put(&path, limits.clone()), put)?;
    Ok((status, Json(changed)))
}

/// Change limits: absent fields stay, `null` removes a limit. The targets that follow are on their way when this is
/// answered.
#[utoipa::path(patch, path = "/v1/containers/{path}", operation_id = "patch_container",
    params(("path" = String, Path), ChangeQuery), request_body = LimitsPatch,
    responses((status = 200, description = "The container as it is now; with `dry_run`, what would change.",
        body = ChangedContainer), (status = 404), (status = 507)))]
pub(super) async fn patch(
    State(balancer): Shared,
    inside: Inside,
    Params(how): Params<ChangeQuery>,
    Body(patch): Body<LimitsPatch>,
) -> Result<Json<Changed<ContainerObject>>, Problem> {
    alter(&balancer, &path(inside)?, &patch, how.dry_run)
}

/// Remove a container that holds neither guests nor containers.
#[utoipa::path(delete, path = "/v1/containers/{path}", operation_id = "delete_container",
    params(("path" = String, Path), ChangeQuery),
    responses((status = 204, description = "The container is removed."), (status = 200,
        description = "With `dry_run`: what would change.", body = Preview),
        (status = 404), (status = 409), (status = 507)))]
pub(super) async fn delete(
    State(balancer): Shared,
    inside: Inside,
    Params(how): Params<ChangeQuery>,
) -> Result<Response, Problem> {
    let path = path(inside)?;
    removed(how.dry_run, || balancer.preview_delete(&path), || balancer.delete(&path))
}
