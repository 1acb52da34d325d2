//! How a change is made, and its answer.

use crate::objects::{BindingObject, Changed, ContainerObject, GuestObject, PolicyObject, Preview, Problem};
use crate::state::StateError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

/// The schema of [`Changed`], for each thing: a schema of a type with a parameter would repeat the thing's own schema.
macro_rules! schema {
    ($name:ident, $thing:ty) => {
        /// The thing after the change, or what the change would do.
        #[derive(ToSchema)]
        #[serde(untagged)]
        #[expect(dead_code, reason = "a schema")]
        pub(super) enum $name {
            /// The thing, changed.
            Done(Box<$thing>),
            /// With `dry_run=true`: what would change.
            Previewed(Preview),
        }
    };
}

schema!(ChangedContainer, ContainerObject);
schema!(ChangedGuest, GuestObject);
schema!(ChangedPolicy, PolicyObject);
schema!(ChangedBinding, BindingObject);

/// Makes a change, or only previews it.
pub(super) fn changed<T>(
    dry_run: bool,
    preview: impl FnOnce() -> Result<Preview, StateError>,
    change: impl FnOnce() -> Result<T, StateError>,
) -> Result<Changed<T>, StateError> {
    if dry_run {
        preview().map(Changed::Previewed)
    } else {
        change().map(|done| Changed::Done(Box::new(done)))
    }
}

/// Removes a thing, which is answered with nothing, or only previews that.
#[expect(clippy::result_large_err, reason = "once per refused request, and handlers want the problem itself")]
pub(super) fn removed(
    dry_run: bool,
    preview: impl FnOnce() -> Result<Preview, StateError>,
    remove: impl FnOnce() -> Result<(), StateError>,
) -> Result<Response, Problem> {
    if dry_run {
        return Ok(Json(preview()?).into_response());
    }
    remove()?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
