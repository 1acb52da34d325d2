//! Plays recorded observations through the policy: `balancer record` writes them, one JSON object per line.

use policy::{GuestMemory, Observation, decide};
use serde::Serialize;
use std::collections::BTreeMap;

/// Why a recording cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A line is not an observation.
    #[error("Line {line} is not an observation")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// There is none.
    #[error("The file has no observations")]
    Empty,
}

/// What the policy makes of a recording.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Observations.
    pub ticks: u64,
    /// Changes of targets, by time and guest, with the reason.
    pub changes: Vec<Change>,
    /// Ticks at which the sum of targets was above the budget without a shortfall being reported.
    pub violations: u64,
}

/// A target that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Time, milliseconds.
    pub at_ms: u64,
    /// The guest.
    pub guest: String,
    /// The target, bytes.
    pub target_bytes: u64,
    /// The rule.
    pub rule: &'static str,
    /// The rule as a sentence.
    pub reason: String,
}

/// Plays a recording: each observation as it was made, with what this version of the policy would have remembered.
///
/// # Errors
/// If a line is not an observation, or there is none.
pub fn replay(text: &str) -> Result<Replay, ReplayError> {
    let mut replay = Replay::default();
    let mut memories: BTreeMap<String, GuestMemory> = BTreeMap::new();
    let mut host = None;
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let mut observation: Observation =
            serde_json::from_str(text).map_err(|source| ReplayError::Line { line: line + 1, source })?;
        for guest in &mut observation.guests {
            guest.memory = memories.get(&guest.name).copied().unwrap_or(guest.memory);
        }
        observation.memory = host.unwrap_or(observation.memory);
        let plan = decide(&observation);
        for (i, (target, view)) in plan.targets.iter().zip(&observation.guests).enumerate() {
            if view.memory.target_bytes != Some(target.target_bytes) || replay.ticks == 0 {
                replay.changes.push(Change {
                    at_ms: observation.now_ms,
                    guest: view.name.clone(),
                    target_bytes: target.target_bytes,
                    rule: target.reason.rule(),
                    reason: target.reason.text(&observation, i),
                });
            }
        }
        let sum = plan.targets.iter().zip(&observation.guests).fold(0u64, |sum, (target, view)| {
            sum.saturating_add(target.target_bytes).saturating_add(view.overhead_bytes)
        });
        let beyond = plan.budget.is_some_and(|budget| sum > budget.bytes);
        let odd = plan.targets.iter().any(|target| {
            target.floor_bytes > target.need_bytes.min(target.ceiling_bytes)
                || target.memory.health.is_excluded()
        });
        replay.violations += u64::from(beyond && plan.shortfalls.is_empty() && !odd);
        memories =
            observation.guests.iter().zip(&plan.targets).map(|(v, t)| (v.name.clone(), t.memory)).collect();
        host = Some(plan.memory);
        replay.ticks += 1;
    }
    if replay.ticks == 0 { Err(ReplayError::Empty) } else { Ok(replay) }
}
