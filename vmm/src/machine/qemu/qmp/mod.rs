//! QEMU's Machine Protocol: JSON lines over a stream socket, commands that are answered by their id, and events
//! between.
//!
//! ```text
//!   QEMU --> {"QMP": ...}                         the greeting, once: a monitor serves one client at a time
//!        <-- {"execute": "qmp_capabilities", ..}
//!        <-- {"execute": "balloon", "id": 7, ..}
//!   QEMU --> {"event": "BALLOON_CHANGE", ..}      at any time
//!   QEMU --> {"return": {}, "id": 7}              or {"error": {..}, "id": 7}
//! ```
//!
//! Existing crates (`qapi` with `qapi-qmp`) generate QEMU's whole schema of one version, refuse newer events, and
//! read lines and wait without a bound. Here the other side may be hostile or hang, and the same dozen commands serve
//! QEMU 7.2 and 10: they are typed in [`wire`], and [`client`] bounds lines and waits.

pub mod client;
pub mod wire;

pub use client::{Deadlines, Qmp, QmpError};
pub use wire::{Command, Event};

#[cfg(test)]
#[path = "qmp_test.rs"]
mod tests;
