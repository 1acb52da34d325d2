//! What there is.

use super::body::shortened;
use super::problem::Problem;
use super::{attach, bindings, containers, document, events, guests, host, policy, pool, query};
use crate::state::Balancer;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{self, MethodRouter};
use axum::{Router, middleware};
use std::sync::Arc;

/// A route: method, path as axum and as OpenAPI write it but for the `*` of a path with slashes, handler.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    handler: MethodRouter<Arc<Balancer>>,
}

/// Every route.
pub(super) fn routes() -> Vec<Route> {
    let route = |method, path, handler: MethodRouter<Arc<Balancer>>| Route {
        method,
        path,
        handler: handler.layer(middleware::from_fn(query::none)),
    };
    let with_query = |method, path, handler| Route { method, path, handler };
    let container = "/v1/containers/{*path}";
    vec![
        route(Method::GET, "/v1/host", routing::get(host::host)),
        route(Method::GET, "/v1/version", routing::get(host::version)),
        route(Method::GET, "/v1/containers", routing::get(containers::list)),
        route(Method::GET, "/v1/containers/", routing::get(containers::get_root)),
        with_query(Method::PATCH, "/v1/containers/", routing::patch(containers::patch_root)),
        route(Method::GET, container, routing::get(containers::get)),
        with_query(Method::PUT, container, routing::put(containers::put)),
        with_query(Method::PATCH, container, routing::patch(containers::patch)),
        with_query(Method::DELETE, container, routing::delete(containers::delete)),
        route(Method::GET, "/v1/guests", routing::get(guests::list)),
        route(Method::POST, "/v1/guests", routing::post(attach::attach)),
        route(Method::GET, "/v1/guests/{id}", routing::get(guests::get)),
        route(Method::DELETE, "/v1/guests/{id}", routing::delete(attach::detach)),
        with_query(Method::PATCH, "/v1/guests/{id}", routing::patch(guests::patch)),
        with_query(Method::GET, "/v1/guests/{id}/frames", routing::get(guests::frames)),
        route(Method::GET, "/v1/guests/{id}/explain", routing::get(policy::explain_guest)),
        route(Method::GET, "/v1/explain/", routing::get(policy::explain_root)),
        route(Method::GET, "/v1/explain/{*path}", routing::get(policy::explain_container)),
        route(Method::GET, "/v1/policy", routing::get(policy::get)),
        with_query(Method::PATCH, "/v1/policy", routing::patch(policy::patch)),
        route(Method::GET, "/v1/policy/observation", routing::get(policy::observation)),
        with_query(Method::GET, "/v1/pool", routing::get(pool::get)),
        route(Method::GET, "/v1/bindings", routing::get(bindings::list)),
        with_query(Method::PUT, "/v1/bindings", routing::put(bindings::put)),
        with_query(Method::DELETE, "/v1/bindings", routing::delete(bindings::delete)),
        with_query(Method::GET, "/v1/events", routing::get(events::events)),
        route(Method::GET, "/openapi.json", routing::get(document::openapi)),
    ]
}

/// The service.
pub fn router(balancer: Arc<Balancer>) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, route| {
        tracing::debug!(method = %route.method, path = route.path, "route");
        router.route(route.path, route.handler)
    });
    router.fallback(unknown_path).method_not_allowed_fallback(wrong_method).with_state(balancer)
}

async fn unknown_path(uri: Uri) -> Problem {
    let path = shortened(uri.path());
    let detail = format!("There is nothing at {path}; /openapi.json lists what there is");
    Problem::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let path = shortened(uri.path());
    let detail = format!("{path} does not know {method}; /openapi.json lists what there is");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "The method is not known here", detail)
}
