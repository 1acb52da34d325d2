//! Bindings: which container is charged for an image as a whole.

use crate::objects::BindingObject;
use crate::pool::{BINDINGS_MAX, Bindings, Subject};
use crate::state::error::Reasons;
use crate::state::{Balancer, State, StateError};
use crate::tree::Put;
use protocol::path::ContainerPath;

impl Balancer {
    /// All bindings in the order of their text.
    #[must_use]
    pub fn bindings(&self) -> Vec<BindingObject> {
        let state = self.state();
        state.bindings.iter().map(|(subject, to)| state.binding_object(subject, to)).collect()
    }

    /// Binds a path or an image to a container, which is charged from now on for all that the host holds of it.
    ///
    /// # Errors
    /// When there is no such container or it has no room, when the subject is bound to another one and is not to be
    /// replaced, or when the journal cannot be written.
    pub fn bind(
        &self,
        subject: Subject,
        container: &ContainerPath,
        replace: bool,
    ) -> Result<(Put, BindingObject), StateError> {
        let state = &mut *self.state();
        let before = state.bindings.get(&subject).cloned();
        let next = state.bindings_with(&subject, container, replace)?;
        state.adopt_bindings(next)?;
        if before.as_ref() != Some(container) {
            let detail = match &before {
                Some(other) => format!("It pays for {subject} from now on, as {other} did before"),
                None => format!("It pays for {subject} from now on"),
            };
            state.events.push("bound", None, Some(container), &detail);
        }
        let put = if before.is_some() { Put::Replaced } else { Put::Created };
        Ok((put, state.binding_object(&subject, container)))
    }

    /// Removes a binding.
    ///
    /// # Errors
    /// When it is not bound, or the journal cannot be written.
    pub fn unbind(&self, subject: &Subject) -> Result<(), StateError> {
        let state = &mut *self.state();
        let (container, next) = state.bindings_without(subject)?;
        state.adopt_bindings(next)?;
        state.events.push("unbound", None, Some(&container), &format!("It pays for {subject} no longer"));
        state.sweep(&container);
        Ok(())
    }
}

impl State {
    fn adopt_bindings(&mut self, next: Bindings) -> Result<(), StateError> {
        if next != self.bindings {
            self.journal.commit_bindings(&self.bindings, &next)?;
            self.bindings = next;
            self.rebind();
            self.adjust();
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
        if self.tree.get(container).is_none() {
            return Err(StateError::NoContainer { field: "container", path: container.clone() });
        }
        match self.bindings.get(subject) {
            Some(other) if other != container && !replace => {
                return Err(StateError::Bound { subject: subject.clone(), container: other.clone() });
            }
            None if self.bindings.len() >= BINDINGS_MAX => return Err(StateError::Bindings),
            _ => {}
        }
        let mut next = self.bindings.clone();
        next.put(subject.clone(), container.clone());
        self.check_binding(&next, container)?;
        Ok(next)
    }

    /// The container that is charged for a subject, and the bindings without it.
    pub(in crate::state) fn bindings_without(
        &self,
        subject: &Subject,
    ) -> Result<(ContainerPath, Bindings), StateError> {
        let container = self.bindings.get(subject).cloned();
        let container = container.ok_or_else(|| StateError::NoBinding(subject.clone()))?;
        let mut next = self.bindings.clone();
        next.remove(subject);
        Ok((container, next))
    }

    /// Looks at what would be if these were the bindings. They are as they were when this returns.
    pub(in crate::state) fn with_bindings<T>(&mut self, next: &Bindings, look: impl FnOnce(&Self) -> T) -> T {
        let kept = std::mem::replace(&mut self.bindings, next.clone());
        self.rebind();
        let seen = look(self);
        self.bindings = kept;
        self.rebind();
        seen
    }

    /// Checks that no limit on the way to the root would be broken by pages that guests map, of images that a container
    /// is to be charged for. Pages that no guest maps can be evicted.
    fn check_binding(&mut self, next: &Bindings, container: &ContainerPath) -> Result<(), StateError> {
        let before = self.usage();
        let (after, unmapped) = self.with_bindings(next, |state| {
            let unmapped: u64 =
                state.payers_of(container).map(|payer| state.pool.unmapped_bytes(payer)).sum();
            (state.usage(), unmapped)
        });
        let mut reasons = Reasons::default();
        for above in container.ancestors() {
            let Some(max_bytes) = self.tree.get(&above).and_then(|node| node.limits.max_bytes) else {
                continue;
            };
            let (was, would) =
                (self.usage_inside(&before, &above).bytes, self.usage_inside(&after, &above).bytes);
            let needed_bytes = would.saturating_sub(unmapped);
            // A limit that holds no more than before is not this binding's business.
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
        let decided = self.pool.iter().filter(|(key, image)| {
            let precise = self.bindings.deciding(&key.digest, &image.origin);
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
