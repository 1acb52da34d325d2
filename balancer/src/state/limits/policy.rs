//! The policy as clients see it: knobs, and why a guest has its target.

use crate::objects::{ContainerExplanation, KnobsPatch, PolicyObject};
use crate::state::error::Reasons;
use crate::state::tick::adjust::since;
use crate::state::{Balancer, State, StateError};
use crate::tree::TreeError;
use policy::{self, Explanation, IDLE_TAX_RANGE, INTERVAL_MS_RANGE, Knobs, Observation};
use protocol::bytes::{BYTES_MAX, Human};
use protocol::limits::LimitsError;
use protocol::path::ContainerPath;
use std::time::Duration;
use tokio::sync::watch;

impl Balancer {
    /// The policy.
    #[must_use]
    pub fn policy(&self) -> PolicyObject {
        self.state().policy()
    }

    /// Changes knobs; targets that follow are on their way when this returns.
    ///
    /// # Errors
    /// Every value that is out of its bounds, or that the journal cannot be written; nothing changed.
    pub fn turn_knobs(&self, patch: &KnobsPatch) -> Result<PolicyObject, StateError> {
        let state = &mut *self.state();
        let knobs = patched(state.knobs, patch)?;
        if knobs != state.knobs {
            state.journal.commit_knobs(&knobs)?;
            let text = format!(
                "reserve_bytes={},idle_tax_percent={},interval_ms={},oom_policy={}",
                knobs.reserve_bytes.map_or("default".into(), |bytes| bytes.to_string()),
                knobs.idle_tax_percent,
                knobs.interval_ms,
                knobs.oom_policy.name()
            );
            state.events.push("policy_changed", None, None, &text);
            state.knobs = knobs;
            // The host's memory for guests is measured again.
            state.memory = Default::default();
            state.interval.send_replace(Duration::from_millis(knobs.interval_ms));
            state.adjust();
        }
        Ok(state.policy())
    }

    /// The time between two turns, whenever it changes.
    #[must_use]
    pub fn watch_interval(&self) -> watch::Receiver<Duration> {
        self.state().interval.subscribe()
    }

    /// The policy's input at this moment.
    #[must_use]
    pub fn observation(&self) -> Observation {
        self.state().observe()
    }

    /// Why a guest has its target.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn explain_guest(&self, name: &str) -> Result<Explanation, StateError> {
        let observation = self.state().observe();
        let guest = observation.guests.iter().position(|view| view.name == name);
        let guest = guest.ok_or_else(|| StateError::NoGuest(name.to_owned()))?;
        let explained = policy::explain(&observation, &policy::decide(&observation), guest);
        Ok(self.state().with_limits(explained))
    }

    /// Why the guests in a container have their targets.
    ///
    /// # Errors
    /// When there is none of this path.
    pub fn explain_container(&self, path: &ContainerPath) -> Result<ContainerExplanation, StateError> {
        let observation = {
            let state = self.state();
            state.tree.get(path).ok_or_else(|| TreeError::Missing(path.clone()))?;
            state.observe()
        };
        let plan = policy::decide(&observation);
        let inside = |view: &policy::GuestView| observation.containers[view.container].path.is_inside(path);
        let guests: Vec<usize> =
            observation.guests.iter().enumerate().filter(|(_, view)| inside(view)).map(|(i, _)| i).collect();
        let sum = |of: fn(&policy::GuestTarget) -> u64| {
            guests.iter().fold(0u64, |sum, i| sum.saturating_add(of(&plan.targets[*i])))
        };
        let explained: Vec<_> = guests.iter().map(|i| policy::explain(&observation, &plan, *i)).collect();
        let state = self.state();
        Ok(ContainerExplanation {
            path: path.clone(),
            target_bytes: sum(|target| target.target_bytes),
            need_bytes: sum(|target| target.need_bytes),
            guests: explained.into_iter().map(|explained| state.with_limits(explained)).collect(),
        })
    }

    /// Tasks of the host stalled for memory: the host is looked at and decided about now, not at the next turn.
    pub fn stalled(&self) {
        let state = &mut *self.state();
        let first = state.stalled_at.is_none_or(|at| since(at) > policy::STALL_MS);
        state.stalled_at = Some(std::time::Instant::now());
        state.host = host::meminfo::HostSample::take();
        if first {
            let left = Human(state.host.memory.available_bytes);
            state.events.push(
                "host_stalled",
                None,
                None,
                &format!("Tasks of the host stall for memory; {left} are left"),
            );
        }
        state.adjust();
    }
}

impl State {
    /// Adds the innermost limit that is exceeded because the guest cannot release memory.
    fn with_limits(&self, mut explained: Explanation) -> Explanation {
        let Some(guest) = self.guests.get(&explained.guest) else { return explained };
        if let Some(why) = &mut explained.cannot_give {
            let usage = self.usage();
            let exceeded = guest.about.container.ancestors().find_map(|path| {
                let max = self.tree.get(&path)?.limits.max_bytes?;
                let used = self.usage_inside(&usage, &path).bytes;
                (used > max).then(|| {
                    format!(
                        "; {path} uses {}, and its max, {}, cannot be enforced on it",
                        Human(used),
                        Human(max)
                    )
                })
            });
            why.extend(exceeded);
        }
        explained
    }

    fn policy(&self) -> PolicyObject {
        PolicyObject { knobs: self.knobs, budget: self.budget, stalled_age_ms: self.stalled_at.map(since) }
    }
}

/// Knobs after a change.
pub(in crate::state) fn patched(knobs: Knobs, patch: &KnobsPatch) -> Result<Knobs, StateError> {
    let next = patch.on(knobs);
    let tax = (u64::from(*IDLE_TAX_RANGE.start()), u64::from(*IDLE_TAX_RANGE.end()));
    let interval = (*INTERVAL_MS_RANGE.start(), *INTERVAL_MS_RANGE.end());
    let mut reasons = Reasons::default();
    for (field, value, (least, most)) in [
        ("reserve_bytes", next.reserve_bytes.unwrap_or(0), (0, BYTES_MAX)),
        ("idle_tax_percent", next.idle_tax_percent.into(), tax),
        ("interval_ms", next.interval_ms, interval),
    ] {
        if !(least..=most).contains(&value) {
            let bound = format!("must be between {least} and {most}");
            reasons.note(Err(StateError::Knob(LimitsError { field, value: value.to_string(), bound })));
        }
    }
    reasons.checked().map(|()| next)
}
