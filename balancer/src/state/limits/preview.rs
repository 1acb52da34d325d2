//! What a change would do, without making it: the same checks and the same policy, but nothing is sent.

use crate::guests::Guest;
use crate::objects::{KnobsPatch, PlannedTarget, Preview};
use crate::pool::Subject;
use crate::state::limits::policy::patched;
use crate::state::{Balancer, State, StateError};
use policy::{self, Observation, Plan};
use protocol::limits::{Limits, LimitsPatch};
use protocol::path::ContainerPath;

impl Balancer {
    /// What a container of these limits would do.
    ///
    /// # Errors
    /// As the change itself would be refused; the same holds for all below.
    pub fn preview_put(&self, path: &ContainerPath, limits: Limits) -> Result<Preview, StateError> {
        let state = self.state();
        let (_, next) = state.tree_with(path, limits)?;
        Ok(preview(&state.observe_with(&next)))
    }

    /// What other limits would do.
    ///
    /// # Errors
    /// As above.
    pub fn preview_patch(&self, path: &ContainerPath, patch: &LimitsPatch) -> Result<Preview, StateError> {
        let state = self.state();
        let next = state.tree_altered(path, patch)?;
        Ok(preview(&state.observe_with(&next)))
    }

    /// What the end of a container would do.
    ///
    /// # Errors
    /// As above.
    pub fn preview_delete(&self, path: &ContainerPath) -> Result<Preview, StateError> {
        let state = self.state();
        let next = state.tree_without(path)?;
        Ok(preview(&state.observe_with(&next)))
    }

    /// What a move would do to targets. Pages of images that the guest maps are assumed to stay charged as they are.
    ///
    /// # Errors
    /// As above.
    pub fn preview_move(
        &self,
        name: &str,
        to: &ContainerPath,
        with_charges: bool,
    ) -> Result<Preview, StateError> {
        let state = &mut *self.state();
        let owner = state.check_move(name, to, with_charges)?;
        let observation = state.observe_guest_as(name, |guest| {
            guest.about.container = to.clone();
            guest.about.charge_to = None;
            if with_charges {
                guest.owners.clear();
            }
            guest.owners.insert(owner);
            guest.owner = owner;
        });
        Ok(preview(&observation))
    }

    /// What charging a container would do to targets; the guest's own again if that is `None`.
    ///
    /// # Errors
    /// As above.
    pub fn preview_charge(&self, name: &str, to: Option<&ContainerPath>) -> Result<Preview, StateError> {
        let state = &mut *self.state();
        let own = state.existing(name)?.about.container.clone();
        let to = to.filter(|to| **to != own);
        let owner = state.check_charge(name, to)?;
        let observation = state.observe_guest_as(name, |guest| {
            guest.about.charge_to = to.cloned();
            guest.owners.insert(owner);
        });
        Ok(preview(&observation))
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
        let state = &mut *self.state();
        let next = state.bindings_with(subject, container, replace)?;
        Ok(preview(&state.with_bindings(&next, State::observe)))
    }

    /// What the end of a binding would do.
    ///
    /// # Errors
    /// As above.
    pub fn preview_unbind(&self, subject: &Subject) -> Result<Preview, StateError> {
        let state = &mut *self.state();
        let (_, next) = state.bindings_without(subject)?;
        Ok(preview(&state.with_bindings(&next, State::observe)))
    }

    /// What other knobs would do.
    ///
    /// # Errors
    /// As above.
    pub fn preview_knobs(&self, patch: &KnobsPatch) -> Result<Preview, StateError> {
        let state = self.state();
        let mut observation = state.observe();
        observation.knobs = patched(state.knobs, patch)?;
        // As when they are changed, the host's memory for guests is measured again.
        observation.memory = Default::default();
        Ok(preview(&observation))
    }
}

impl State {
    /// The policy's input if a guest were changed. The guest is as before when this returns.
    fn observe_guest_as(&mut self, name: &str, change: impl FnOnce(&mut Guest)) -> Observation {
        let guest = self.guests.get_mut(name).expect("it was looked up for the checks");
        let about = (guest.about.container.clone(), guest.about.charge_to.clone());
        let owned = (guest.owner, guest.owners.clone());
        change(guest);
        let observation = self.observe();
        let guest = self.guests.get_mut(name).expect("nothing leaves by observing");
        (guest.about.container, guest.about.charge_to) = about;
        (guest.owner, guest.owners) = owned;
        observation
    }
}

fn preview(observation: &Observation) -> Preview {
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
