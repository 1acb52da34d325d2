//! `/openapi.json`.

use super::bounds::refine;
use super::{attach, bindings, containers, events, guests, host, policy, pool};
use crate::objects::{ObjectUsage, Problem};
use axum::Json;
use serde_json::Value;
use std::sync::LazyLock;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{AllOf, Content, Ref, RefOr, Response, Schema};
use utoipa::{Modify, OpenApi};

/// The OpenAPI document, made from the handlers.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "balancer", description = "Memory limits of virtual machines that are used as containers."),
    paths(
        host::host,
        host::version,
        containers::list,
        containers::get_root,
        containers::patch_root,
        containers::get,
        containers::put,
        containers::patch,
        containers::delete,
        guests::list,
        attach::attach,
        attach::detach,
        guests::get,
        guests::patch,
        guests::frames,
        pool::get,
        bindings::list,
        bindings::put,
        bindings::delete,
        policy::explain_guest,
        policy::explain_root,
        policy::explain_container,
        policy::get,
        policy::patch,
        policy::observation,
        events::events,
        openapi
    ),
    components(schemas(ObjectUsage, Problem)),
    modifiers(&Refusals, &Flattened)
)]
struct Document;

/// Every refusal is a problem object. A handler names the statuses of its own; the statuses that come from reading a
/// path, a query or a body, or from the token, are the same for all handlers that have one.
struct Refusals;

impl Modify for Refusals {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for item in document.paths.paths.values_mut() {
            let operations =
                [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
            operations.into_iter().flatten().for_each(refusals);
        }
    }
}

fn refusals(operation: &mut Operation) {
    let from_body: &[u16] = if operation.request_body.is_some() { &[408, 409, 413, 422] } else { &[] };
    let responses = &mut operation.responses.responses;
    let own = responses.keys().filter_map(|status| status.parse().ok()).filter(|status| *status >= 400);
    // A query that is not known is refused everywhere.
    let statuses: Vec<u16> = own.chain([400, 401]).chain(from_body.iter().copied()).collect();
    for status in statuses {
        let mut response = Response::new(meaning(status));
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        response.content.insert("application/problem+json".into(), RefOr::T(content));
        responses.insert(status.to_string(), RefOr::T(response));
    }
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The path, the query or the body cannot be read.",
        401 => "Over TCP: the token is missing or wrong.",
        404 => "The container, guest or binding does not exist.",
        408 => "The body did not come in time.",
        409 => "The present state, or another field, does not allow it.",
        413 => "The body is too large.",
        422 => "A field has a value that no state allows: `field`, `value`, `bound`.",
        503 => "There are too many clients.",
        504 => "The guest did not answer.",
        507 => "The journal cannot be written; nothing was changed.",
        _ => "An internal error.",
    }
}

/// A container has the fields of its limits next to others, and the policy those of its knobs. The schemas of limits
/// and knobs forbid other fields, because they are schemas of requests too.
struct Flattened;

const FLATTENED: [(&str, &str); 2] = [("ContainerObject", "Limits"), ("PolicyObject", "Knobs")];

impl Modify for Flattened {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let Some(components) = &mut document.components else { return };
        for (outer, inner) in FLATTENED {
            let Some(RefOr::T(Schema::Object(mut fields))) = components.schemas.get(inner).cloned() else {
                continue;
            };
            fields.additional_properties = None;
            if let Some(RefOr::T(Schema::AllOf(AllOf { items, .. }))) = components.schemas.get_mut(outer) {
                for item in items.iter_mut().filter(|item| refers_to(item, inner)) {
                    *item = RefOr::T(Schema::Object(fields.clone()));
                }
            }
        }
    }
}

fn refers_to(item: &RefOr<Schema>, name: &str) -> bool {
    matches!(item, RefOr::Ref(item) if item.ref_location.ends_with(&format!("/{name}")))
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "get_openapi",
    responses((status = 200, description = "An OpenAPI document.", body = Object)))]
pub(super) async fn openapi() -> Json<&'static Value> {
    Json(document())
}

/// The document, complete.
pub(super) fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
        let document = serde_json::to_value(Document::openapi());
        let mut document = document.expect("a document has only plain fields");
        refine(&mut document);
        document
    });
    &DOCUMENT
}
