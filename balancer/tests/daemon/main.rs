//! A real balancer, spoken to as a `vmm` and as a client do.

mod bad_requests;
mod command_line;
mod guests;
mod life;
mod support;
