//! The event loop and its subscribers: one per source of events.

pub mod channel;
mod escape;
pub mod event_loop;
pub mod queues;
pub mod signals;
pub mod stdin;
