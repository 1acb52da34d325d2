//! Changes of containers by a client.

use super::{ContainerObject, Engine, EngineError, State};
use crate::tree::{Put, Tree, TreeError};
use protocol::limits::{Limits, LimitsError, LimitsPatch};
use protocol::objects::ObjectKind;
use protocol::path::ContainerPath;

impl Engine {
    /// Makes a container or replaces its limits.
    ///
    /// # Errors
    /// When a bound is broken or the journal cannot be written.
    pub fn put(&self, path: &ContainerPath, limits: Limits) -> Result<(Put, ContainerObject), EngineError> {
        let state = &mut *self.state();
        let mut next = state.tree.clone();
        let done = next.put(path, limits)?;
        let object = state.change_limits(path, next)?;
        Ok((done, object))
    }

    /// Changes limits of a container. The targets that follow from it are on their way when this returns.
    ///
    /// # Errors
    /// When there is no such container, a bound is broken or the journal cannot be written.
    pub fn patch(&self, path: &ContainerPath, patch: &LimitsPatch) -> Result<ContainerObject, EngineError> {
        let state = &mut *self.state();
        let mut next = state.tree.clone();
        next.patch(path, patch)?;
        state.change_limits(path, next)
    }

    /// Removes a container.
    ///
    /// # Errors
    /// When there is no such container, it is not empty or the journal cannot be written.
    pub fn delete(&self, path: &ContainerPath) -> Result<(), EngineError> {
        let state = &mut *self.state();
        // Who charges it is as good as inside; what was charged to it before passes to the guests' own containers.
        let uses = |guest: &&crate::guests::Guest| {
            guest.about.container == *path || guest.about.charge_to.as_ref() == Some(path)
        };
        let guests = state.guests.values().filter(uses).count();
        state.check_unbound(path)?;
        let mut next = state.tree.clone();
        next.remove(path, guests)?;
        state.adopt(next)?;
        state.events.push("container_removed", None, Some(path), "By request");
        if let Some(parent) = path.parent() {
            state.sweep(&parent);
        }
        Ok(())
    }
}

impl State {
    fn change_limits(&mut self, path: &ContainerPath, next: Tree) -> Result<ContainerObject, EngineError> {
        self.check_floors(path, &next)?;
        self.check_objects_held(path, &next)?;
        self.check_domains(path, &next)?;
        self.check_pinned(path, &next)?;
        let before = self.tree.get(path).map(|node| node.limits.clone());
        self.adopt(next)?;
        let after = self.tree.get(path).map(|node| node.limits.clone());
        if before != after {
            let text = after.as_ref().map(describe).unwrap_or_default();
            let kind = if before.is_some() { "limits_changed" } else { "container_created" };
            self.events.push(kind, None, Some(path), &text);
        }
        self.adjust();
        self.watch_objects();
        self.container(path)
    }

    /// A `max` below what the guests inside need to live is refused here, instead of killing somebody later.
    pub(super) fn check_floors(&self, path: &ContainerPath, next: &Tree) -> Result<(), EngineError> {
        let Some(max) = next.get(path).and_then(|node| node.limits.max_bytes) else { return Ok(()) };
        let floors =
            self.guests_inside(path).fold(0u64, |sum, guest| sum.saturating_add(guest.about.floor_bytes));
        if floors <= max {
            return Ok(());
        }
        let bound = format!("must be at least {floors}, what the guests in it need to live");
        let source = LimitsError { field: "max_bytes", value: max.to_string(), bound };
        Err(TreeError::Limits { path: path.clone(), source }.into())
    }
}

/// Limits as the command line takes them.
pub(super) fn describe(limits: &Limits) -> String {
    use protocol::bytes::Human;
    let bound = |bytes: Option<u64>| bytes.map_or("none".into(), |bytes| Human(bytes).to_string());
    let memory = format!(
        "max={},high={},low={},min={},weight={}",
        bound(limits.max_bytes),
        bound(limits.high_bytes),
        Human(limits.low_bytes),
        Human(limits.min_bytes),
        limits.weight
    );
    let memory = match &limits.domain {
        Some(domain) => format!("{memory},domain={domain}"),
        None => memory,
    };
    let objects = ObjectKind::ALL.iter().filter_map(|kind| Some((kind.key(), limits.max_of(*kind)?)));
    objects.fold(memory, |text, (key, max)| format!("{text},{key}={max}"))
}
