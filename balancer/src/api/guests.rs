//! `/v1/guests`.

use super::Shared;
use super::body::Json as Body;
use super::change::ChangedGuest;
use super::query::{Name, Params};
use crate::objects::{
    ChangeQuery, Changed, Charges, FramesObject, FramesQuery, GuestObject, GuestPatch, Preview, Problem,
};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use protocol::path::ContainerPath;
use std::time::Duration;
use tokio::sync::Semaphore;

/// All guests.
#[utoipa::path(get, path = "/v1/guests", operation_id = "list_guests",
    responses((status = 200, description = "All guests, in the order of their names.", body = Vec<GuestObject>)))]
pub(super) async fn list(State(balancer): Shared) -> Json<Vec<GuestObject>> {
    Json(balancer.guests())
}

/// One guest.
#[utoipa::path(get, path = "/v1/guests/{id}", operation_id = "get_guest", params(("id" = String, Path,
    description = "The guest's name")),
    responses((status = 200, description = "The guest.", body = GuestObject), (status = 404)))]
pub(super) async fn get(State(balancer): Shared, Name(id): Name) -> Result<Json<GuestObject>, Problem> {
    Ok(Json(balancer.guest(&id)?))
}

/// Move a guest to another container, or charge another container for what it touches. Targets that follow are on their
/// way when this is answered. 202 if its vmm did not confirm within 5 s; `charge_pending` becomes false when it does.
#[utoipa::path(patch, path = "/v1/guests/{id}", operation_id = "patch_guest", params(("id" = String, Path,
    description = "The guest's name"), ChangeQuery), request_body = GuestPatch,
    responses((status = 200, description = "The guest as it is now; with `dry_run`, what would change.",
        body = ChangedGuest),
        (status = 202, description = "The guest; its vmm did not confirm yet.", body = GuestObject),
        (status = 404), (status = 409), (status = 504), (status = 507)))]
pub(super) async fn patch(
    State(balancer): Shared,
    Name(id): Name,
    Params(how): Params<ChangeQuery>,
    Body(patch): Body<GuestPatch>,
) -> Result<(StatusCode, Json<Changed<GuestObject>>), Problem> {
    let alone = |field: &str, value: String, bound: &str| {
        let detail = format!("{field} is {value}, but {bound}");
        Problem::new(StatusCode::CONFLICT, "field", "Two fields contradict each other", detail)
            .of_field(field, value, bound)
    };
    let ordered = match (&patch.container, &patch.charge_to) {
        (Some(_), Some(to)) => {
            let value = to.as_ref().map_or("null", ContainerPath::as_str).to_owned();
            return Err(alone("charge_to", value, "must not be given together with container"));
        }
        (None, _) if patch.charges.is_some() => {
            let value = if patch.charges == Some(Charges::Leave) { "leave" } else { "move" };
            return Err(alone("charges", value.to_owned(), "must be given together with container"));
        }
        (Some(to), None) => {
            let with_charges = patch.charges.unwrap_or_default() == Charges::Move;
            if how.dry_run {
                return previewed(balancer.preview_move(&id, to, with_charges)?);
            }
            Some(balancer.move_guest(&id, to, with_charges)?)
        }
        (None, Some(to)) if how.dry_run => return previewed(balancer.preview_charge(&id, to.as_ref())?),
        (None, Some(to)) => Some(balancer.charge(&id, to.as_ref())?),
        (None, None) => None,
    };
    let done = match ordered {
        Some(ordered) => ordered.done().await,
        None => true,
    };
    let status = if done { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(Changed::Done(Box::new(balancer.guest(&id)?)))))
}

#[expect(clippy::result_large_err, reason = "once per refused request, and handlers want the problem itself")]
fn previewed(preview: Preview) -> Result<(StatusCode, Json<Changed<GuestObject>>), Problem> {
    Ok((StatusCode::OK, Json(Changed::Previewed(preview))))
}

/// Tables that are counted frame by frame at the same time, and how long one may take: a `vmm` can make it slow.
const AUDITS_MAX: usize = 16;
const AUDIT_DEADLINE: Duration = Duration::from_secs(10);
static AUDITS: Semaphore = Semaphore::const_new(AUDITS_MAX);

/// A guest's frames by state.
#[utoipa::path(get, path = "/v1/guests/{id}/frames", operation_id = "get_frames",
    params(("id" = String, Path, description = "The guest's name"), FramesQuery),
    responses((status = 200, description = "Its frames by state.", body = FramesObject), (status = 404),
        (status = 500), (status = 503), (status = 504)))]
pub(super) async fn frames(
    State(balancer): Shared,
    Name(id): Name,
    Params(query): Params<FramesQuery>,
) -> Result<Json<FramesObject>, Problem> {
    let frames = balancer.frames(&id, query.max_age_ms).await?;
    let Ok(place) = AUDITS.try_acquire() else {
        let detail = format!("{AUDITS_MAX} frame tables are being counted already");
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "There are too many clients",
            detail,
        ));
    };
    // Counting millions of entries must not block the daemon's one thread.
    let guest = balancer.guest(&id)?;
    let count = move || {
        let _place = place;
        FramesObject::new(&guest, &frames, query.blocks, query.audit)
    };
    match tokio::time::timeout(AUDIT_DEADLINE, tokio::task::spawn_blocking(count)).await {
        Ok(Ok(counted)) => Ok(Json(counted)),
        Ok(Err(error)) => {
            let title = "The frames could not be counted";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, error.to_string()))
        }
        Err(_) => {
            let detail = format!("The frames were not counted within {} s", AUDIT_DEADLINE.as_secs());
            let title = "A frame table takes too long";
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "deadline", title, detail))
        }
    }
}
