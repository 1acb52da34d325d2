//! A real balancer, spoken to as a `vmm` and as a client do.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod bad_requests;
mod command_line;
mod guests;
mod life;
mod support;
