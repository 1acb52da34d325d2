//! `/v1/bindings`.

use super::Shared;
use super::body::{Json as Body, shortened};
use super::change::{ChangedBinding, changed, removed};
use super::query::Params;
use crate::objects::{BindingObject, BindingPut, BindingQuery, ChangeQuery, Changed, Preview, Problem};
use crate::pool::{Library, Subject, SubjectError};
use crate::tree::Put;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use image::StoreError;
use std::io;

/// All bindings.
#[utoipa::path(get, path = "/v1/bindings", responses((status = 200, description = "All bindings.",
    body = Vec<BindingObject>)))]
pub(super) async fn list(State(balancer): Shared) -> Json<Vec<BindingObject>> {
    Json(balancer.bindings())
}

/// Bind a host path or an image to a container, which is then charged for all that the host holds of the images that
/// were built from there. The longest path decides; a binding of the image itself takes precedence over paths.
#[utoipa::path(put, path = "/v1/bindings", params(ChangeQuery), request_body = BindingPut,
    responses((status = 200, description = "The binding, which existed; with `dry_run`, what would change.",
        body = ChangedBinding),
        (status = 201, description = "The binding, which is new.", body = BindingObject), (status = 409),
        (status = 500), (status = 507)))]
pub(super) async fn put(
    State(balancer): Shared,
    Params(how): Params<ChangeQuery>,
    Body(binding): Body<BindingPut>,
) -> Result<(StatusCode, Json<Changed<BindingObject>>), Problem> {
    let (library, text) = (balancer.library(), binding.subject.clone());
    let found = tokio::task::spawn_blocking(move || subject(&library, &text)).await;
    let found = found.map_err(|error| internal(&error))?;
    let subject = found.map_err(|why| refused(&binding.subject, why))?;
    let (to, replace, mut status) = (&binding.container, binding.replace, StatusCode::OK);
    let bind = || {
        let (put, object) = balancer.bind(subject.clone(), to, replace)?;
        if put == Put::Created {
            status = StatusCode::CREATED;
        }
        Ok(object)
    };
    let changed = changed(how.dry_run, || balancer.preview_bind(&subject, to, replace), bind)?;
    Ok((status, Json(changed)))
}

/// Remove a binding: its images are charged by the accounting system again.
#[utoipa::path(delete, path = "/v1/bindings", params(BindingQuery),
    responses((status = 204, description = "The binding is removed."), (status = 200,
        description = "With `dry_run`: what would change.", body = Preview),
        (status = 404), (status = 409), (status = 422), (status = 500), (status = 507)))]
pub(super) async fn delete(
    State(balancer): Shared,
    Params(query): Params<BindingQuery>,
) -> Result<Response, Problem> {
    let (library, text) = (balancer.library(), query.subject.clone());
    // A bound path may have been removed from the disk.
    let find = move || match text.parse() {
        Ok(Subject::Path(path)) => {
            let whole = canonical(&path).unwrap_or_else(|_| path.clone());
            Ok((Subject::Path(path), Subject::Path(whole)))
        }
        Ok(subject) => Ok((subject.clone(), subject)),
        Err(_) => subject(&library, &text).map(|found| (found.clone(), found)),
    };
    let found = tokio::task::spawn_blocking(find).await.map_err(|error| internal(&error))?;
    let (plain, canonical) = found.map_err(|why| refused(&query.subject, why))?;
    let known = balancer.bindings().iter().any(|binding| binding.subject == plain.to_string());
    let subject = if known { &plain } else { &canonical };
    removed(query.dry_run, || balancer.preview_unbind(subject), || balancer.unbind(subject))
}

/// Why a text names nothing that can be bound.
enum Unbound {
    /// It never does.
    Malformed(String),
    /// It does not on this host, now.
    Missing(String),
}

/// The path or image that a text names. A path is resolved, because images record the resolved path that they were
/// built from.
fn subject(library: &Library, text: &str) -> Result<Subject, Unbound> {
    let malformed = |error: SubjectError| Unbound::Malformed(error.to_string());
    if text.contains('/') && !text.starts_with('/') {
        return Err(malformed(SubjectError::Neither(shortened(text))));
    }
    if !text.starts_with('/') {
        let digest = library.store().and_then(|store| store.resolve(text));
        return digest.map(Subject::Image).map_err(|error| match error {
            StoreError::Malformed { .. } => Unbound::Malformed(error.to_string()),
            error => Unbound::Missing(error.to_string()),
        });
    }
    let Subject::Path(path) = text.parse().map_err(malformed)? else {
        return Err(Unbound::Malformed("it is not a path".to_owned()));
    };
    match canonical(&path) {
        Ok(path) => Ok(Subject::Path(path)),
        // The folder may be removed and its image still exist.
        Err(error) => {
            let subject = Subject::Path(path);
            let origins = library.origins().unwrap_or_default();
            let known = origins.iter().any(|(digest, origin)| subject.covers(digest, origin));
            if known {
                Ok(subject)
            } else {
                Err(Unbound::Missing(format!(
                    "{text} does not exist ({error}), and no image was built from it"
                )))
            }
        }
    }
}

fn canonical(path: &str) -> io::Result<String> {
    let path = std::fs::canonicalize(path)?;
    path.into_os_string().into_string().map_err(|_| io::Error::other("its name is not UTF-8"))
}

fn refused(text: &str, why: Unbound) -> Problem {
    let (status, why) = match why {
        Unbound::Malformed(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
        Unbound::Missing(why) => (StatusCode::CONFLICT, why),
    };
    let text = shortened(text);
    let detail = format!("subject is {text:?}, but {why}");
    Problem::new(status, "field", "The subject cannot be bound", detail).of_field(
        "subject",
        text,
        "must be a host path that exists, or an image of the store",
    )
}

fn internal(error: &tokio::task::JoinError) -> Problem {
    let title = "The store could not be read";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, error.to_string())
}
