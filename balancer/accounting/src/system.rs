//! The accounting system that a host uses.

use super::{Accounting, GRACE_HALF_LIFE_MS, Rss, Shares, Zones, partial, static_ownership};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An accounting system, as `--accounting` names it.
///
/// Static is the default. It is exact for guest RAM, which is nearly all there is to account for, from what the frame
/// table holds anyway; its charges sum to what is resident; and it is the rule of the kernel's own memory cgroup, so
/// that both can be compared. Where containers that do not trust each other share a pool, free-riding makes partial
/// the better choice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum System {
    /// Zones of 2 MiB, each charged whole to one container
    Zones,
    /// The first container to touch a frame is charged for it
    #[default]
    Static,
    /// All containers that map a frame are charged equal parts of it
    Partial,
    /// Each container is charged for all that it maps now, as the kernel counts it
    Rss,
}

impl System {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Zones, Self::Static, Self::Partial, Self::Rss];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zones => "zones",
            Self::Static => "static",
            Self::Partial => "partial",
            Self::Rss => "rss",
        }
    }

    /// The system for an empty host.
    #[must_use]
    pub fn build(self) -> Box<dyn Accounting> {
        match self {
            Self::Zones => Box::new(Zones::default()),
            Self::Static => Box::new(static_ownership(Some(GRACE_HALF_LIFE_MS))),
            Self::Partial => Box::new(partial(Shares::Exact, Some(GRACE_HALF_LIFE_MS))),
            Self::Rss => Box::new(Rss::default()),
        }
    }
}
