//! QEMU's Machine Protocol: JSON lines over a stream socket, commands that are answered by their id, and events between.
//!
//! ```text
//!   QEMU --> {"QMP": ...}                         the greeting, once: a monitor serves one client at a time
//!        <-- {"execute": "qmp_capabilities", ..}
//!        <-- {"execute": "balloon", "id": 7, ..}
//!   QEMU --> {"event": "BALLOON_CHANGE", ..}      at any time
//!   QEMU --> {"return": {}, "id": 7}              or {"error": {..}, "id": 7}
//! ```
//!
//! Crates that speak it (`qapi` with `qapi-qmp`) generate all of QEMU's schema of one version, refuse an event that is newer,
//! read lines without a bound and wait without one. Here the other side may be hostile or hang, and QEMU 7.2 and 10 are
//! spoken to with the same dozen of commands: those are typed in [`wire`], and [`client`] bounds lines and waits.

pub mod client;
pub mod wire;

pub use client::{Qmp, QmpError};
pub use wire::{Command, Event};

#[cfg(test)]
#[path = "qmp_test.rs"]
mod tests;
