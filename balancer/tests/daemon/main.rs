//! A real balancer, spoken to as a `vmm` and as a client do.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod accounting;
mod bad_requests;
mod charges;
mod command_line;
mod crowds;
mod guests;
mod liars;
mod life;
mod models;
mod moves;
mod objects;
mod policy;
mod support;
