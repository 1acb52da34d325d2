//! Bindings by a client: the container that is charged for an image as a whole.

use crate::objects::BindingObject;
use crate::pool::{BINDINGS_MAX, Bindings, Subject};
use crate::state::error::Reasons;
use crate::state::{Balancer, State, StateError};
use crate::tree::Put;
use protocol::path::ContainerPath;
use std::time::Instant;

impl Balancer {
    /// All bindings in the order of their text.
    #[must_use]
    pub fn bindings(&self) -> Vec<BindingObject> {
        self.view(|state, _| {
            let bindings = state.containers.bindings().iter();
            bindings.map(|(subject, to)| state.binding_object(subject, to)).collect()
        })
    }

    /// Binds a path or an image to a container. What the host holds of it is charged there from now on.
    ///
    /// # Errors
    /// When there is no such container or it has no room, when it is bound to another one and not to be replaced, or
    /// when the journal cannot be written.
    pub fn bind(
        &self,
        subject: Subject,
        container: &ContainerPath,
        replace: bool,
    ) -> Result<(Put, BindingObject), StateError> {
        self.change(|state, now| {
            let before = state.containers.bindings().get(&subject).cloned();
            let next = state.bindings_with(&subject, container, replace)?;
            state.adopt_bindings(next, now)?;
            if before.as_ref() != Some(container) {
                let detail = match &before {
                    Some(other) => format!("It pays for {subject} from now on, as {other} did before"),
                    None => format!("It pays for {subject} from now on"),
                };
                state.events.push("bound", None, Some(container), &detail);
            }
            let put = if before.is_some() { Put::Replaced } else { Put::Created };
            Ok((put, state.binding_object(&subject, container)))
        })
    }

    /// Removes a binding.
    ///
    /// # Errors
    /// When it is not bound, or the journal cannot be written.
    pub fn unbind(&self, subject: &Subject) -> Result<(), StateError> {
        self.change(|state, now| {
            let (container, next) = state.bindings_without(subject)?;
            state.adopt_bindings(next, now)?;
            let detail = format!("It pays for {subject} no longer");
            state.events.push("unbound", None, Some(&container), &detail);
            state.sweep(&container);
            Ok(())
        })
    }
}

impl State {
    fn adopt_bindings(&mut self, next: Bindings, now: Instant) -> Result<(), StateError> {
        if self.containers.adopt_bindings(next)? {
            self.rebind();
            self.adjust(now);
        }
        Ok(())
    }

    /// The bindings with one more, or with another payer.
    pub(in crate::state) fn bindings_with(
        &mut self,
        subject: &Subject,
        container: &ContainerPath,
        replace: bool,
    ) -> Result<Bindings, StateError> {
        if self.containers.tree().get(container).is_none() {
            return Err(StateError::NoContainer { field: "container", path: container.clone() });
        }
        let bindings = self.containers.bindings();
        match bindings.get(subject) {
            Some(other) if other != container && !replace => {
                return Err(StateError::Bound { subject: subject.clone(), container: other.clone() });
            }
            None if bindings.len() >= BINDINGS_MAX => return Err(StateError::Bindings),
            _ => {}
        }
        let mut next = bindings.clone();
        next.put(subject.clone(), container.clone());
        self.check_binding(&next, container)?;
        Ok(next)
    }

    /// The payer of what is bound, and the bindings without it.
    pub(in crate::state) fn bindings_without(
        &self,
        subject: &Subject,
    ) -> Result<(ContainerPath, Bindings), StateError> {
        let bindings = self.containers.bindings();
        let container = bindings.get(subject).cloned();
        let container = container.ok_or_else(|| StateError::NoBinding(subject.clone()))?;
        let mut next = bindings.clone();
        next.remove(subject);
        Ok((container, next))
    }

    /// Reads what would be if these were the bindings. They are as they were when this returns.
    pub(in crate::state) fn with_bindings<T>(&mut self, next: &Bindings, read: impl FnOnce(&Self) -> T) -> T {
        let before = self.containers.try_bindings(next.clone());
        self.rebind();
        let result = read(self);
        self.containers.try_bindings(before);
        self.rebind();
        result
    }

    /// No limit on the way to the root is broken by what guests map of images that a container is to pay for. What no
    /// guest maps can be evicted.
    fn check_binding(&mut self, next: &Bindings, container: &ContainerPath) -> Result<(), StateError> {
        let before = self.usage();
        let (after, unmapped) = self.with_bindings(next, |state| {
            let payers = state.payers_of(container);
            let unmapped: u64 = payers.map(|payer| state.pool.images.unmapped_bytes(payer)).sum();
            (state.usage(), unmapped)
        });
        let mut reasons = Reasons::default();
        for above in container.ancestors() {
            let node = self.containers.tree().get(&above);
            let Some(max_bytes) = node.and_then(|node| node.limits.max_bytes) else { continue };
            let (was, would) =
                (self.usage_inside(&before, &above).bytes, self.usage_inside(&after, &above).bytes);
            let needed_bytes = would.saturating_sub(unmapped);
            // A container whose usage does not grow is not affected by this binding.
            if needed_bytes > max_bytes && would > was {
                let (field, path) = ("container", container.clone());
                let missing = StateError::NoRoom { field, path, above, max_bytes, needed_bytes };
                reasons.note(Err(missing));
            }
        }
        reasons.checked()
    }

    fn binding_object(&self, subject: &Subject, container: &ContainerPath) -> BindingObject {
        // A more precise binding may decide about what this one covers.
        let decided = self.pool.images.iter().filter(|(key, image)| {
            let precise = self.containers.bindings().deciding(&key.digest, &image.origin);
            precise.is_some_and(|decides| decides == subject)
        });
        let (mut images, mut resident_bytes) = (vec![], 0);
        for (key, image) in decided {
            images.push(key.digest);
            resident_bytes += image.resident_bytes();
        }
        // One image may be there for several domains.
        images.dedup();
        BindingObject { subject: subject.to_string(), container: container.clone(), images, resident_bytes }
    }
}
