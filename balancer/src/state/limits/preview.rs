//! What a change would do, without making it: the same checks, the same policy, and then nothing is sent.

use crate::guests::Guest;
use crate::objects::{KnobsPatch, PlannedTarget, Preview};
use crate::pool::Subject;
use crate::state::limits::policy::patched;
use crate::state::tick::adjust::Observed;
use crate::state::{Balancer, State, StateError};
use policy::{self, Plan};
use protocol::limits::{Limits, LimitsPatch};
use protocol::path::ContainerPath;
use std::time::Instant;

impl Balancer {
    /// What a container of these limits would do.
    ///
    /// # Errors
    /// As the change itself would be refused; this holds for all previews.
    pub fn preview_put(&self, path: &ContainerPath, limits: Limits) -> Result<Preview, StateError> {
        self.view(|state, now| {
            let (_, next) = state.tree_with(path, limits)?;
            Ok(preview(&state.observe_with(&next, now)))
        })
    }

    /// What other limits would do.
    ///
    /// # Errors
    /// As above.
    pub fn preview_patch(&self, path: &ContainerPath, patch: &LimitsPatch) -> Result<Preview, StateError> {
        self.view(|state, now| {
            let next = state.tree_altered(path, patch)?;
            Ok(preview(&state.observe_with(&next, now)))
        })
    }

    /// What the end of a container would do.
    ///
    /// # Errors
    /// As above.
    pub fn preview_delete(&self, path: &ContainerPath) -> Result<Preview, StateError> {
        self.view(|state, now| {
            let next = state.tree_without(path)?;
            Ok(preview(&state.observe_with(&next, now)))
        })
    }

    /// What a move would do to targets. What the guest maps of images is taken as charged as it is now.
    ///
    /// # Errors
    /// As above.
    pub fn preview_move(
        &self,
        name: &str,
        to: &ContainerPath,
        with_charges: bool,
    ) -> Result<Preview, StateError> {
        self.change(|state, now| {
            let owner = state.check_move(name, to, with_charges)?;
            let observed = state.observe_guest_as(name, now, |guest| {
                guest.about.container = to.clone();
                guest.about.charge_to = None;
                if with_charges {
                    guest.owners.clear();
                }
                guest.owners.insert(owner);
                guest.owner = owner;
            })?;
            Ok(preview(&observed))
        })
    }

    /// What charging a container would do to targets; the guest's own again if that is `None`.
    ///
    /// # Errors
    /// As above.
    pub fn preview_charge(&self, name: &str, to: Option<&ContainerPath>) -> Result<Preview, StateError> {
        self.change(|state, now| {
            let own = state.guests.existing(name)?.about.container.clone();
            let to = to.filter(|to| **to != own);
            let owner = state.check_charge(name, to)?;
            let observed = state.observe_guest_as(name, now, |guest| {
                guest.about.charge_to = to.cloned();
                guest.owners.insert(owner);
            })?;
            Ok(preview(&observed))
        })
    }

    /// What a binding would do.
    ///
    /// # Errors
    /// As above.
    pub fn preview_bind(
        &self,
        subject: &Subject,
        container: &ContainerPath,
        replace: bool,
    ) -> Result<Preview, StateError> {
        self.change(|state, now| {
            let next = state.bindings_with(subject, container, replace)?;
            Ok(preview(&state.with_bindings(&next, |state| state.observe(now))))
        })
    }

    /// What the end of a binding would do.
    ///
    /// # Errors
    /// As above.
    pub fn preview_unbind(&self, subject: &Subject) -> Result<Preview, StateError> {
        self.change(|state, now| {
            let (_, next) = state.bindings_without(subject)?;
            Ok(preview(&state.with_bindings(&next, |state| state.observe(now))))
        })
    }

    /// What other knobs would do.
    ///
    /// # Errors
    /// As above.
    pub fn preview_knobs(&self, patch: &KnobsPatch) -> Result<Preview, StateError> {
        self.view(|state, now| {
            let mut observed = state.observe(now);
            observed.observation.knobs = patched(state.decisions.knobs, patch)?;
            // As when they are turned, what the host has for guests is measured again.
            observed.observation.memory = Default::default();
            Ok(preview(&observed))
        })
    }
}

impl State {
    /// The input of the policy if a guest were changed. The guest is as before when this returns.
    fn observe_guest_as(
        &mut self,
        name: &str,
        now: Instant,
        change: impl FnOnce(&mut Guest),
    ) -> Result<Observed, StateError> {
        let guest = self.guests.existing_mut(name)?;
        let about = (guest.about.container.clone(), guest.about.charge_to.clone());
        let owned = (guest.owner, guest.owners.clone());
        change(guest);
        let observed = self.observe(now);
        let guest = self.guests.existing_mut(name)?;
        (guest.about.container, guest.about.charge_to) = about;
        (guest.owner, guest.owners) = owned;
        Ok(observed)
    }
}

fn preview(Observed { observation, .. }: &Observed) -> Preview {
    let Plan { targets, shortfalls, .. } = policy::decide(observation);
    let targets = targets
        .iter()
        .zip(&observation.guests)
        .enumerate()
        .filter(|(_, (target, view))| view.memory.target_bytes != Some(target.target_bytes))
        .map(|(i, (target, view))| PlannedTarget {
            guest: view.name.clone(),
            now_bytes: view.memory.target_bytes,
            target_bytes: target.target_bytes,
            share_bytes: target.share_bytes,
            rule: target.reason.rule().into(),
            reason: target.reason.text(observation, i),
        })
        .collect();
    Preview { targets, shortfalls }
}
