//! Query strings, and names in paths.

use super::body::{parse, shortened, whole};
use crate::objects::Problem;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;

const TITLE: &str = "A parameter of the query is refused";

/// A query string whose refusal is a problem object.
#[derive(Debug)]
pub(super) struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refuse =
            |error: QueryRejection| Problem::new(StatusCode::BAD_REQUEST, "query", TITLE, error.body_text());
        let Query(pairs): Query<Vec<(String, String)>> =
            Query::from_request_parts(parts, state).await.map_err(refuse)?;
        // Written as the text of an object, which keeps a name that is given twice, a query is refused with the words
        // of a body.
        let fields: Vec<String> = pairs.iter().map(field).collect();
        parse(format!("{{{}}}", fields.join(",")).as_bytes()).map(Self).map_err(|problem| Problem {
            kind: "/problems/query".into(),
            title: TITLE.into(),
            status: StatusCode::BAD_REQUEST.as_u16(),
            ..problem
        })
    }
}

/// Parameters that are texts even where they read as a number: eight digits of a digest may.
const TEXTS: [&str; 1] = ["subject"];

/// A parameter as a field of an object: a text that reads as a number or a truth value is one, every other text is a
/// string.
fn field((name, text): &(String, String)) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let value = whole(&value).unwrap_or(value);
    let is_plain = matches!(value, Value::Number(_) | Value::Bool(_)) && !TEXTS.contains(&name.as_str());
    let value = if is_plain { value } else { Value::String(text.clone()) };
    format!("{}:{value}", Value::String(name.clone()))
}

/// Refuses a query where there are no parameters: `PATCH /v1/containers/a?max_bytes=1` would change nothing and look as
/// if it had.
pub(super) async fn none(request: Request, next: Next) -> Response {
    match request.uri().query() {
        None | Some("") => next.run(request).await,
        Some(query) => {
            let detail = format!("The query is {:?}, but this path has no parameters", shortened(query));
            Problem::new(StatusCode::BAD_REQUEST, "query", TITLE, detail).into_response()
        }
    }
}

/// The one name in a path, percent-decoded. Its refusal is a problem object.
#[derive(Debug)]
pub(super) struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let refuse = |error: axum::extract::rejection::PathRejection| {
            Problem::new(StatusCode::BAD_REQUEST, "path", "This is not a name", error.body_text())
        };
        Path::from_request_parts(parts, state).await.map(|Path(name)| Self(name)).map_err(refuse)
    }
}
