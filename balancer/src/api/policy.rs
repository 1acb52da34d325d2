//! `/v1/policy`, and why guests have their targets.

use super::Shared;
use super::body::Json as Body;
use super::change::{ChangedPolicy, changed};
use super::containers::{self, Inside};
use super::query::{Name, Params};
use crate::objects::{ChangeQuery, Changed, ContainerExplanation, KnobsPatch, PolicyObject, Problem};
use axum::Json;
use axum::extract::State;
use policy::{Explanation, Observation};
use protocol::path::ContainerPath;

/// The policy: its knobs, and what the host has for guests.
#[utoipa::path(get, path = "/v1/policy", operation_id = "get_policy",
    responses((status = 200, description = "The policy.", body = PolicyObject)))]
pub(super) async fn get(State(balancer): Shared) -> Json<PolicyObject> {
    Json(balancer.policy())
}

/// Change knobs: absent fields stay. A restart keeps them, unless its command line sets others. Targets that follow are
/// on their way when this is answered.
#[utoipa::path(patch, path = "/v1/policy", operation_id = "patch_policy", params(ChangeQuery),
    request_body = KnobsPatch,
    responses((status = 200, description = "The policy as it is now; with `dry_run`, what would change.",
        body = ChangedPolicy), (status = 507)))]
pub(super) async fn patch(
    State(balancer): Shared,
    Params(how): Params<ChangeQuery>,
    Body(patch): Body<KnobsPatch>,
) -> Result<Json<Changed<PolicyObject>>, Problem> {
    let changed = changed(how.dry_run, || balancer.preview_knobs(&patch), || balancer.turn_knobs(&patch));
    Ok(Json(changed?))
}

/// The policy's input at this moment, as `balancer simulate --trace` reads it.
#[utoipa::path(get, path = "/v1/policy/observation", operation_id = "get_observation",
    responses((status = 200, description = "One object, the same as a line of a recording.", body = Object)))]
pub(super) async fn observation(State(balancer): Shared) -> Json<Observation> {
    Json(balancer.observation())
}

/// Why a guest has its target.
#[utoipa::path(get, path = "/v1/guests/{id}/explain", operation_id = "explain_guest",
    params(("id" = String, Path, description = "The guest's name")),
    responses((status = 200, description = "The rule that decided, and its inputs.", body = Explanation),
        (status = 404)))]
pub(super) async fn explain_guest(
    State(balancer): Shared,
    Name(id): Name,
) -> Result<Json<Explanation>, Problem> {
    Ok(Json(balancer.explain_guest(&id)?))
}

/// Why the guests on the host have their targets.
#[utoipa::path(get, path = "/v1/explain/", operation_id = "explain_root_container",
    responses((status = 200, description = "The guests on the host, each explained.", body = ContainerExplanation)))]
pub(super) async fn explain_root(State(balancer): Shared) -> Result<Json<ContainerExplanation>, Problem> {
    Ok(Json(balancer.explain_container(&ContainerPath::root())?))
}

/// Why the guests in a container have their targets.
#[utoipa::path(get, path = "/v1/explain/{path}", operation_id = "explain_container",
    params(("path" = String, Path, description = "`web/a` for the container `/web/a`")),
    responses((status = 200, description = "The guests in the container, each explained.",
        body = ContainerExplanation), (status = 404)))]
pub(super) async fn explain_container(
    State(balancer): Shared,
    inside: Inside,
) -> Result<Json<ContainerExplanation>, Problem> {
    Ok(Json(balancer.explain_container(&containers::path(inside)?)?))
}
