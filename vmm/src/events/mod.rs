//! The event loop and its subscribers: one per source of events.

pub mod channel;
pub mod event_loop;
pub mod queues;
pub mod signals;
pub mod stdin;
