//! REST over a unix socket, and over TCP with a token.
//!
//! Every answer is JSON; every refusal is a problem object (RFC 9457) that names the field, the value and the bound,
//! and changes nothing. `routes::routes` is the one list of routes, and `/openapi.json` has the same. The objects that
//! are sent and received are in [`objects`](crate::objects).

#![forbid(unsafe_code)]

mod attach;
mod bindings;
mod body;
mod bounds;
mod change;
mod containers;
mod document;
mod events;
mod guests;
mod host;
mod places;
mod policy;
mod pool;
mod problem;
mod query;
mod routes;
mod server;
mod token;

pub use places::Places;
pub use routes::router;
pub use server::serve;
pub use token::Token;

use crate::state::Balancer;
use axum::extract::State;
use std::sync::Arc;

/// The balancer, as handlers take it.
type Shared = State<Arc<Balancer>>;

#[cfg(test)]
#[path = "api_test.rs"]
mod tests;
