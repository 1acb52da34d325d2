//! What the operator of a host can set. There are no more knobs than these: each has a default that fits most hosts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The part of a host's memory that is reserved for the host by default: a sixteenth.
const RESERVE_PART: u64 = 16;
/// The largest default reserve, bytes.
const RESERVE_BYTES_MAX: u64 = 4 << 30;
/// VMware ESX's default of the idle memory tax (`Mem.IdleTax`), percent.
pub const IDLE_TAX_PERCENT: u32 = 75;
/// Bounds of the idle tax: at 100 percent an idle byte would be worth nothing.
pub const IDLE_TAX_RANGE: std::ops::RangeInclusive<u32> = 0..=99;
/// Default time between two ticks, milliseconds.
pub const INTERVAL_MS: u64 = 1000;
/// Bounds of the time between two ticks, milliseconds.
pub const INTERVAL_MS_RANGE: std::ops::RangeInclusive<u64> = 10..=60_000;

/// The knobs of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Knobs {
    /// Memory that guests leave to the host, bytes; `null` for a sixteenth of it, at most 4 GiB.
    pub reserve_bytes: Option<u64>,
    /// How much more of its share a byte costs that a guest holds without using it: 75 makes it four times as
    /// expensive. Percent, 0 to 99.
    pub idle_tax_percent: u32,
    /// Time between two ticks of sampling and deciding, milliseconds, 10 to 60000.
    pub interval_ms: u64,
    /// What happens to guests when the host is about to run out of memory.
    pub oom_policy: OomPolicy,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            reserve_bytes: None,
            idle_tax_percent: IDLE_TAX_PERCENT,
            interval_ms: INTERVAL_MS,
            oom_policy: OomPolicy::default(),
        }
    }
}

/// What happens when the host is about to run out of memory although every guest was asked for what it can release.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum OomPolicy {
    /// An event reports it; the kernel acts as it does without a balancer.
    #[default]
    Report,
    /// The guest that holds most beyond its target is paused until the host has memory again, at most a minute; then
    /// the next one, if that was not enough.
    Pause,
    /// The guest that holds most beyond its target is killed.
    Kill,
}

impl OomPolicy {
    /// Its name in JSON and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Pause => "pause",
            Self::Kill => "kill",
        }
    }
}

impl Knobs {
    /// What is reserved on a host with this much memory, bytes.
    #[must_use]
    pub fn reserve_of(&self, total_bytes: u64) -> u64 {
        self.reserve_bytes.unwrap_or((total_bytes / RESERVE_PART).min(RESERVE_BYTES_MAX))
    }
}
