//! Query strings, and names in paths.

use super::problem::Problem;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

/// A query string whose refusal is a problem object.
#[derive(Debug)]
pub(super) struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refuse = |error: QueryRejection| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "query",
                "A parameter of the query is refused",
                error.body_text(),
            )
        };
        Query::from_request_parts(parts, state).await.map(|Query(value)| Self(value)).map_err(refuse)
    }
}

/// The one name in a path, percent-decoded. Its refusal is a problem object.
#[derive(Debug)]
pub(super) struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refuse = |error: axum::extract::rejection::PathRejection| {
            Problem::new(StatusCode::BAD_REQUEST, "path", "This is no name", error.body_text())
        };
        Path::from_request_parts(parts, state).await.map(|Path(name)| Self(name)).map_err(refuse)
    }
}
