//! `/v1/pool`.

use super::query::Params;
use crate::pool::PoolObject;
use crate::state::Balancer;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use utoipa::IntoParams;

/// What is asked of the pool.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PoolQuery {
    /// TableScan at files and frame tables first unless that was done at most so long ago, milliseconds.
    max_age_ms: Option<u64>,
}

/// The shared pool: what it holds, what that costs whom, and what is saved.
#[utoipa::path(get, path = "/v1/pool", params(PoolQuery),
    responses((status = 200, description = "The pool.", body = PoolObject)))]
pub(super) async fn get(
    State(balancer): State<Arc<Balancer>>,
    Params(query): Params<PoolQuery>,
) -> Json<PoolObject> {
    if let Some(most) = query.max_age_ms {
        let now = Instant::now();
        balancer.scan_pool_since(now.checked_sub(Duration::from_millis(most)).unwrap_or(now)).await;
    }
    Json(balancer.pool())
}
