//! A real balancer, spoken to as a `vmm` and as a client do.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod accounting;
mod admission;
mod bad_requests;
mod charges;
mod command_line;
mod crowds;
mod disks;
mod document;
mod folder;
mod guests;
mod images;
mod liars;
mod life;
mod managed;
mod merge;
mod moves;
mod objects;
mod policy;
mod pool;
mod pressure;
mod schema;
mod support;
