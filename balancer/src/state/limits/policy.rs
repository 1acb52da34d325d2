//! The policy as clients see it: knobs, and why a guest has what it has.

use crate::objects::{ContainerExplanation, KnobsPatch, PolicyObject};
use crate::state::error::Reasons;
use crate::state::{Balancer, State, StateError};
use crate::tree::TreeError;
use policy::{self, Explanation, IDLE_TAX_RANGE, INTERVAL_MS_RANGE, Knobs, Observation};
use protocol::bytes::{BYTES_MAX, Human};
use protocol::limits::LimitsError;
use protocol::path::ContainerPath;
use std::time::Instant;

impl Balancer {
    /// The policy.
    #[must_use]
    pub fn policy(&self) -> PolicyObject {
        self.view(State::policy)
    }

    /// Changes knobs; targets that follow are on their way when this returns.
    ///
    /// # Errors
    /// Every value that is out of its bounds, or that the journal cannot be written; nothing changed.
    pub fn turn_knobs(&self, patch: &KnobsPatch) -> Result<PolicyObject, StateError> {
        self.change(|state, now| {
            let knobs = patched(state.decisions.knobs, patch)?;
            if knobs != state.decisions.knobs {
                state.containers.commit_knobs(&knobs)?;
                let text = format!(
                    "reserve_bytes={},idle_tax_percent={},interval_ms={},oom_policy={}",
                    knobs.reserve_bytes.map_or("default".into(), |bytes| bytes.to_string()),
                    knobs.idle_tax_percent,
                    knobs.interval_ms,
                    knobs.oom_policy.name()
                );
                state.events.push("policy_changed", None, None, &text);
                state.decisions.set_knobs(knobs);
                state.adjust(now);
            }
            Ok(state.policy(now))
        })
    }

    /// The input of the policy now.
    #[must_use]
    pub fn observation(&self) -> Observation {
        self.view(|state, now| state.observe(now).observation)
    }

    /// Why a guest has what it has.
    ///
    /// # Errors
    /// When there is no guest of this name.
    pub fn explain_guest(&self, name: &str) -> Result<Explanation, StateError> {
        let observation = self.observation();
        let guest = observation.guests.iter().position(|view| view.name == name);
        let guest = guest.ok_or_else(|| StateError::NoGuest(name.to_owned()))?;
        let explained = policy::explain(&observation, &policy::decide(&observation), guest);
        Ok(self.view(|state, _| state.with_limits(explained)))
    }

    /// Why the guests in a container have what they have.
    ///
    /// # Errors
    /// When there is no container of this path.
    pub fn explain_container(&self, path: &ContainerPath) -> Result<ContainerExplanation, StateError> {
        let observation = self.view(|state, now| {
            state.containers.tree().get(path).ok_or_else(|| TreeError::Missing(path.clone()))?;
            Ok::<_, StateError>(state.observe(now).observation)
        })?;
        let plan = policy::decide(&observation);
        let inside = |view: &policy::GuestView| observation.containers[view.container].path.is_inside(path);
        let guests: Vec<usize> =
            observation.guests.iter().enumerate().filter(|(_, view)| inside(view)).map(|(i, _)| i).collect();
        let sum = |of: fn(&policy::GuestTarget) -> u64| {
            guests.iter().fold(0u64, |sum, i| sum.saturating_add(of(&plan.targets[*i])))
        };
        let explained = guests.iter().map(|i| policy::explain(&observation, &plan, *i));
        Ok(ContainerExplanation {
            path: path.clone(),
            target_bytes: sum(|target| target.target_bytes),
            need_bytes: sum(|target| target.need_bytes),
            guests: self.view(|state, _| explained.map(|explained| state.with_limits(explained)).collect()),
        })
    }

    /// Tasks of the host stalled for memory: the host is read and decided about now, not at the next tick.
    pub fn stalled(&self) {
        let host = self.kernel.host();
        self.change(|state, now| {
            state.take_host(host);
            if state.host.stalled(now) {
                let left = Human(state.host.memory().available_bytes);
                let detail = format!("Tasks of the host stall for memory; {left} are left");
                state.events.push("host_stalled", None, None, &detail);
            }
            state.adjust(now);
        });
    }
}

impl State {
    /// Adds to the reason why a guest cannot release memory the limit that is exceeded by that, the innermost one.
    fn with_limits(&self, mut explained: Explanation) -> Explanation {
        let Some(guest) = self.guests.named(&explained.guest) else { return explained };
        if let Some(why) = &mut explained.cannot_give {
            let usage = self.usage();
            let exceeded = guest.about.container.ancestors().find_map(|path| {
                let max = self.containers.tree().get(&path)?.limits.max_bytes?;
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

    fn policy(&self, now: Instant) -> PolicyObject {
        PolicyObject {
            knobs: self.decisions.knobs,
            budget: self.decisions.budget,
            stalled_age_ms: self.host.stalled_age_ms(now),
        }
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
            let broken = LimitsError { field, value: value.to_string(), bound, by_itself: true };
            reasons.note(Err(StateError::Knob(broken)));
        }
    }
    reasons.checked().map(|()| next)
}
