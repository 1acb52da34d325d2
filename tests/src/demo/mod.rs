//! The demo: three guests in containers under limits, with more promised than there is; then two that share one root.
//!
//! [`story`] is what happens, [`sharing`] its second part, [`screen`] shows it while it does, [`summary`] says in
//! figures what was seen.

mod screen;
mod sharing;
mod story;
mod summary;

pub use story::run;

use crate::engine::Engine;

/// How to show it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Draw one table over and over, for a terminal; plain lines otherwise
    #[arg(long)]
    pub live: bool,
}

/// A guest of the demo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub name: &'static str,
    pub container: &'static str,
    /// `max` of its container at the start, on the engine that takes next to nothing for itself.
    max_bytes: u64,
}

impl Member {
    /// `max` of its container at the start: what this engine takes next to guest RAM is in it.
    pub(crate) fn limit_bytes(&self) -> u64 {
        Engine::current().limit(self.max_bytes)
    }
}

/// `max` of the container of all three.
pub(crate) fn together_bytes() -> u64 {
    MEMBERS.iter().fold(TOGETHER.1, |bytes, _| Engine::current().limit(bytes))
}

pub(crate) const MIB: u64 = 1 << 20;
/// RAM of each guest.
pub(crate) const RAM: &str = "512M";
/// Container of all three, and its `max`, as a member's.
pub(crate) const TOGETHER: (&str, u64) = ("/demo", 768 * MIB);
pub(crate) const MEMBERS: [Member; 3] = [
    Member { name: "web", container: "/demo/web", max_bytes: 256 * MIB },
    Member { name: "db", container: "/demo/db", max_bytes: 512 * MIB },
    Member { name: "batch", container: "/demo/batch", max_bytes: 384 * MIB },
];
