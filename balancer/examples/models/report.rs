//! All that is measured, by system and criterion: the shape of `--json`.

use super::attacks::Attack;
use super::cost::{EventTime, Storage};
use super::lines::Lines;
use super::replay::Difference;
use serde::Serialize;
use std::collections::BTreeMap;

/// An answer to a criterion, and the figures that it follows from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Criterion<T> {
    /// The answer in few words.
    pub verdict: String,
    /// What was measured.
    #[serde(flatten)]
    pub measured: T,
}

/// A charge against what there is, percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Coverage {
    /// Charges for resident frames in percent of what is resident: private memory, page cache that is not mapped, and
    /// an image.
    pub resident_charged_pct: f64,
}

/// An attack on a system. Parts are percent of the true part of the same container.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attacked {
    /// The attack.
    pub attack: Attack,
    /// What the victim is charged: 100 is right.
    pub victim_charged_pct: f64,
    /// What the attacker is charged: 100 is right.
    pub attacker_charged_pct: f64,
    /// Charged without a resident frame, of all that is resident.
    pub fragmentation_pct: f64,
    /// What it does.
    pub outcome: Outcome,
}

/// What an attack does. A difference of a tenth is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing.
    Fails,
    /// The victim is charged more than its part.
    VictimPays,
    /// The pool, which has a limit of its own, is charged what the attacker is not.
    PoolPays,
    /// The missing charge of the attacker is charged to no container.
    #[serde(rename = "nobody_pays")]
    NotCharged,
    /// Memory is charged that cannot be used.
    Strands,
}

impl Outcome {
    /// In few words, for tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Fails => "fails",
            Self::VictimPays => "victim pays",
            Self::PoolPays => "pool pays",
            Self::NotCharged => "not charged",
            Self::Strands => "strands",
        }
    }
}

/// What attacks do to a system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attacks {
    /// One by one.
    pub attacks: Vec<Attacked>,
}

/// A system on the nine criteria.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SystemReport {
    /// Its name.
    pub system: String,
    /// 1. Does everything that is resident count against some limit?
    pub comprehensive_limits: Criterion<Coverage>,
    /// 2. Lines of code.
    pub code_overhead: Lines,
    /// 3. Bytes.
    pub storage_overhead: Storage,
    /// 4. Time of an event.
    pub run_time_overhead: EventTime,
    /// 5. Time and step of a change of a limit.
    pub resize_at_run_time: Criterion<BTreeMap<&'static str, f64>>,
    /// 6. Time to make and to remove a container.
    pub creation_at_run_time: Criterion<BTreeMap<&'static str, f64>>,
    /// 7. Containers that share images, against the truth.
    pub recognizes_sharing: Criterion<Difference>,
    /// 8. Is unused memory charged, or used memory charged twice?
    pub supports_overcommit: Criterion<Difference>,
    /// 9. The known attacks.
    pub denial_of_service: Criterion<Attacks>,
    /// Charges against the truth, by trace.
    pub against_truth: BTreeMap<String, Difference>,
}

/// The victim of a timed unshare.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Victim {
    /// Its highest charge that counted against its limit, frames.
    pub peak_frames: f64,
    /// Time for which that was above its limit, milliseconds.
    pub over_limit_ms: u64,
}

/// The timed unshare without and with a grace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mitigation {
    /// The system.
    pub system: String,
    /// Half-life of the grace, milliseconds.
    pub half_life_ms: u64,
    /// Limit of the victim, frames.
    pub limit_frames: u64,
    /// Without.
    pub before: Victim,
    /// With.
    pub after: Victim,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Seed of the generated traces.
    pub seed: u64,
    /// Events of each trace.
    pub events: BTreeMap<String, usize>,
    /// The four systems.
    pub systems: Vec<SystemReport>,
    /// Partial page ownership in powers of two.
    pub variants: Vec<SystemReport>,
    /// The attack on partial, and the hand-over of static, before and after.
    pub mitigation: Vec<Mitigation>,
}
