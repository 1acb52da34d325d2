//! Changes of containers by a client.

use crate::guests::Guest;
use crate::objects::ContainerObject;
use crate::state::error::Reasons;
use crate::state::{Balancer, State, StateError};
use crate::tree::{Put, Tree, TreeError};
use protocol::limits::{Limits, LimitsError, LimitsPatch, TABLE};
use protocol::path::ContainerPath;
use std::time::Instant;

impl Balancer {
    /// Makes a container or replaces its limits.
    ///
    /// # Errors
    /// Every bound that is broken, or that the journal cannot be written.
    pub fn put(&self, path: &ContainerPath, limits: Limits) -> Result<(Put, ContainerObject), StateError> {
        self.change(|state, now| {
            let (done, next) = state.tree_with(path, limits)?;
            Ok((done, state.change_limits(path, next, now)?))
        })
    }

    /// Changes limits of a container. The targets that follow from it are on their way when this returns.
    ///
    /// # Errors
    /// When there is no such container, every bound that is broken, or that the journal cannot be written.
    pub fn patch(&self, path: &ContainerPath, patch: &LimitsPatch) -> Result<ContainerObject, StateError> {
        self.change(|state, now| {
            let next = state.tree_altered(path, patch)?;
            state.change_limits(path, next, now)
        })
    }

    /// Removes a container.
    ///
    /// # Errors
    /// When there is no such container, it is not empty or the journal cannot be written.
    pub fn delete(&self, path: &ContainerPath) -> Result<(), StateError> {
        self.change(|state, now| {
            let next = state.tree_without(path)?;
            state.adopt(next)?;
            state.events.push("container_removed", None, Some(path), "By request");
            if let Some(parent) = path.parent() {
                state.sweep(&parent);
            }
            state.adjust(now);
            Ok(())
        })
    }
}

impl State {
    /// The tree with a container of these limits.
    pub(in crate::state) fn tree_with(
        &self,
        path: &ContainerPath,
        limits: Limits,
    ) -> Result<(Put, Tree), StateError> {
        let mut next = self.containers.tree().clone();
        let done = next.place(path, limits)?;
        self.check_limits(path, &next)?;
        Ok((done, next))
    }

    /// The tree with other limits of a container.
    pub(in crate::state) fn tree_altered(
        &self,
        path: &ContainerPath,
        patch: &LimitsPatch,
    ) -> Result<Tree, StateError> {
        let mut next = self.containers.tree().clone();
        next.alter(path, patch)?;
        self.check_limits(path, &next)?;
        Ok(next)
    }

    /// The tree without a container.
    pub(in crate::state) fn tree_without(&self, path: &ContainerPath) -> Result<Tree, StateError> {
        // A guest that charges it counts as inside; what was charged to it before passes to the guests' own containers.
        let uses =
            |guest: &&Guest| guest.about.container == *path || guest.about.charge_to.as_ref() == Some(path);
        let guests = self.guests.by_seq().filter(uses).count();
        self.check_unbound(path)?;
        let mut next = self.containers.tree().clone();
        next.remove(path, guests)?;
        Ok(next)
    }

    fn change_limits(
        &mut self,
        path: &ContainerPath,
        next: Tree,
        now: Instant,
    ) -> Result<ContainerObject, StateError> {
        let limits = |state: &Self| state.containers.tree().get(path).map(|node| node.limits.clone());
        let before = limits(self);
        self.adopt(next)?;
        let after = limits(self);
        if before != after {
            let text = after.as_ref().map(describe).unwrap_or_default();
            let kind = if before.is_some() { "limits_changed" } else { "container_created" };
            self.events.push(kind, None, Some(path), &text);
        }
        self.adjust(now);
        self.watch_objects(now);
        self.container(path, now)
    }

    /// All reasons against the limits of a container: the tree's bounds, and the guests and images that exist.
    fn check_limits(&self, path: &ContainerPath, next: &Tree) -> Result<(), StateError> {
        Reasons::default()
            .note_all(next.broken(path))
            .note(self.check_floors(path, next))
            .note_all(self.objects_held(path, next))
            .note(self.check_domains(path, next))
            .note(self.check_pinned(path, next))
            .checked()
    }

    /// A `max` below what the guests inside need to live is refused here, so that no guest is killed for it later.
    fn check_floors(&self, path: &ContainerPath, next: &Tree) -> Result<(), StateError> {
        let max = next.get(path).and_then(|node| node.limits.max_bytes).filter(|max| *max > 0);
        let Some(max) = max else { return Ok(()) };
        let floors = self.guests.floors_inside(path);
        if floors <= max {
            return Ok(());
        }
        let bound = format!("must be at least {floors}, what the guests in it need to live");
        let broken = LimitsError { field: "max_bytes", value: max.to_string(), bound, by_itself: false };
        Err(TreeError::Limits { path: path.clone(), broken }.into())
    }
}

/// Limits as the command line takes them.
pub(in crate::state) fn describe(limits: &Limits) -> String {
    let texts = TABLE.iter().filter_map(|row| Some(format!("{}={}", row.key, row.text(limits)?)));
    texts.collect::<Vec<String>>().join(",")
}
