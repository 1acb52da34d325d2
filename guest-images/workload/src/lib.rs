//! The load generator that runs inside a guest, driven line by line over a console port.
//!
//! A request is one line, `ID COMMAND [ARGUMENT...]`; the answer to each is one line of JSON,
//! `{"id":ID,"ok":true,...}` or `{"id":ID,"ok":false,"error":"..."}`. [`Command`] lists the commands.
//! The content of what it holds comes from a seed ([`pattern`]), so that both sides know each byte.

pub mod channel;
pub mod charge;
pub mod command;
pub mod disk;
pub mod file;
pub mod hold;
pub mod machine;
pub mod oom;
pub mod pattern;
pub mod program;
pub mod region;
pub mod reply;
pub mod session;
pub mod stats;
pub mod tree;

pub use command::Command;
pub use reply::Reply;

/// Bytes of a page of memory on x86-64.
pub const PAGE_BYTES: usize = 4096;
