//! What whoever runs the host may turn. No more than these: each has a default that is right for most hosts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The part of a host's memory that is kept for the host unless somebody says otherwise: a sixteenth.
const RESERVE_PART: u64 = 16;
/// The largest reserve that is taken by itself, bytes.
const RESERVE_BYTES_MAX: u64 = 4 << 30;
/// VMware ESX's default of the idle memory tax (`Mem.IdleTax`), percent.
pub const IDLE_TAX_PERCENT: u32 = 75;
/// Bounds of the idle tax: at 100 percent an idle byte would have no value at all.
pub const IDLE_TAX_RANGE: std::ops::RangeInclusive<u32> = 0..=99;
/// Default time between two turns, milliseconds.
pub const INTERVAL_MS: u64 = 1000;
/// Bounds of the time between two turns, milliseconds.
pub const INTERVAL_MS_RANGE: std::ops::RangeInclusive<u64> = 10..=60_000;

/// The knobs of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Knobs {
    /// Memory that guests leave to the host, bytes; `null` for a sixteenth of it, at most 4 GiB.
    pub reserve_bytes: Option<u64>,
    /// What a byte that a guest holds and does not use costs it more than one that it uses: 75 makes it four times as dear.
    /// Percent, 0 to 99.
    pub idle_tax_percent: u32,
    /// Time between two turns of sampling and deciding, milliseconds, 10 to 60000.
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

/// What happens when the host is about to run out of memory although everybody was asked for what they can give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum OomPolicy {
    /// An event tells of it; the kernel does what it does.
    #[default]
    Report,
    /// The guest that holds most beyond what it was asked to hold stands still until the host has memory again, at most a minute;
    /// then the next one, if that was not enough.
    Pause,
    /// The guest that holds most beyond what it was asked to hold is ended.
    Kill,
}

impl OomPolicy {
    /// As JSON and the command line name it.
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
    /// What is kept for a host of so much memory, bytes.
    #[must_use]
    pub fn reserve_of(&self, total_bytes: u64) -> u64 {
        self.reserve_bytes.unwrap_or((total_bytes / RESERVE_PART).min(RESERVE_BYTES_MAX))
    }
}
