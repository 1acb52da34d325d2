//! `/v1/pool`.

use super::Shared;
use super::query::Params;
use crate::objects::{PoolObject, PoolQuery};
use axum::Json;
use axum::extract::State;
use std::time::{Duration, Instant};

/// The shared pool: what it holds, which containers are charged, and what is saved.
#[utoipa::path(get, path = "/v1/pool", params(PoolQuery),
    responses((status = 200, description = "The pool.", body = PoolObject)))]
pub(super) async fn get(State(balancer): Shared, Params(query): Params<PoolQuery>) -> Json<PoolObject> {
    if let Some(most) = query.max_age_ms {
        let now = Instant::now();
        balancer.scan_pool_since(now.checked_sub(Duration::from_millis(most)).unwrap_or(now)).await;
    }
    Json(balancer.pool())
}
