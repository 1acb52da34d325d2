//! What the end-to-end tests are written with: a host with its own balancer, guests on it, REST, waits that follow
//! progress.

#![forbid(unsafe_code)]

pub mod boots;
pub mod demo;
pub mod engine;
pub mod evidence;
pub mod faults;
pub mod ground;
pub mod guest;
pub mod host;
pub mod http;
pub mod kvm;
pub mod library;
pub mod linux;
pub mod runs;
pub mod scenarios;
pub mod starving;
pub mod terminal;

pub use engine::Engine;
pub use guest::Guest;
pub use host::Host;
pub use wait;
