//! How a change is made, and its answer: the thing as it is now, or with `dry_run` what the change would do.

use super::problem::Problem;
use crate::pool::BindingObject;
use crate::state::{ContainerObject, GuestObject, PlanObject, PolicyObject, StateError};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// How a change is made.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangeQuery {
    /// Answer with the plan that the change would cause, and change nothing.
    #[serde(default)]
    pub(super) dry_run: bool,
}

/// A thing after a change, or what the change would do.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Changed<T> {
    /// The thing, changed.
    Done(Box<T>),
    /// With `dry_run=true`: what would change.
    Planned(PlanObject),
}

/// The schema of [`Changed`], by what is changed: one of a type with a parameter would have a copy of the thing's own in it.
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
            Planned(PlanObject),
        }
    };
}

schema!(ChangedContainer, ContainerObject);
schema!(ChangedGuest, GuestObject);
schema!(ChangedPolicy, PolicyObject);
schema!(ChangedBinding, BindingObject);

impl<T> Changed<T> {
    /// The plan if that was asked for, else the change.
    pub(super) fn by(
        dry_run: bool,
        plan: impl FnOnce() -> Result<PlanObject, StateError>,
        change: impl FnOnce() -> Result<T, StateError>,
    ) -> Result<Self, StateError> {
        if dry_run { plan().map(Self::Planned) } else { change().map(|done| Self::Done(Box::new(done))) }
    }
}

/// The answer to the end of a thing: nothing, or the plan if that was asked for.
#[expect(clippy::result_large_err, reason = "once per refused request, and handlers want the problem itself")]
pub(super) fn ended(
    dry_run: bool,
    plan: impl FnOnce() -> Result<PlanObject, StateError>,
    end: impl FnOnce() -> Result<(), StateError>,
) -> Result<Response, Problem> {
    if dry_run {
        return Ok(Json(plan()?).into_response());
    }
    end()?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
