//! Why a request is refused.

use crate::journal::JournalError;
use crate::pool::{BINDINGS_MAX, Subject};
use crate::tree::TreeError;
use protocol::domain::Domain;
use protocol::limits::LimitsError;
use protocol::message::OWNERS_MAX;
use protocol::path::ContainerPath;
use std::path::PathBuf;

/// Why the balancer refuses a request. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Several reasons.
    #[error("{}", sentence(.0))]
    Many(Vec<StateError>),
    /// The tree forbids it.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A knob of the policy is out of its bounds.
    #[error(transparent)]
    Knob(LimitsError),
    /// The journal cannot hold it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No such guest.
    #[error("There is no guest {0:?}")]
    NoGuest(String),
    /// A request names a container that is not there.
    #[error("{field} is {path}, but there is no such container")]
    NoContainer {
        /// The field of the request.
        field: &'static str,
        /// The container.
        path: ContainerPath,
    },
    /// A limit leaves no room for what a guest would bring.
    #[error(
        "{field} is {path}, but that would bring {above} to {needed_bytes} bytes and its max is {max_bytes}: \
         {} bytes are missing",
        needed_bytes.saturating_sub(*max_bytes)
    )]
    NoRoom {
        /// The field of the request.
        field: &'static str,
        /// The container that it names.
        path: ContainerPath,
        /// The container whose limit it is, on the way from that one to the root.
        above: ContainerPath,
        /// Its `max`.
        max_bytes: u64,
        /// What would be charged there, or what the guests in it need to live if that is more.
        needed_bytes: u64,
    },
    /// The frames of a guest have the most owners that are possible.
    #[error(
        "The frames of guest {name:?} are charged to {OWNERS_MAX} containers already, the most that are possible"
    )]
    Owners {
        /// The guest.
        name: String,
        /// The field of the request.
        field: &'static str,
    },
    /// A path or an image is bound to another container.
    #[error("{subject} is bound to {container} already: ask to replace it, or unbind it first")]
    Bound {
        /// What was to be bound.
        subject: Subject,
        /// What it is bound to.
        container: ContainerPath,
    },
    /// Too many bindings.
    #[error("There are {BINDINGS_MAX} bindings already, the most that are possible")]
    Bindings,
    /// No such binding.
    #[error("{0} is not bound to any container")]
    NoBinding(Subject),
    /// A guest that shares pages would come into another trust domain.
    #[error(
        "container is {path}, of domain {to}, but guest {name:?} shares pages of domain {from}: it must stay in \
         that domain"
    )]
    OtherDomain {
        /// The guest.
        name: String,
        /// The container that it was to move to.
        path: ContainerPath,
        /// The domain of its container.
        from: Domain,
        /// The domain of that one.
        to: Domain,
    },
    /// A guest that was started by someone else cannot be attached.
    #[error("The guest of {} is not attached: {why}", qmp.display())]
    Attach {
        /// Socket of its monitor.
        qmp: PathBuf,
        /// Why, in the words of its helper.
        why: String,
    },
    /// A guest that a `vmm` runs cannot be detached.
    #[error("Guest {0:?} was started by its vmm, not attached: it ends with that")]
    NotAttached(String),
    /// A helper did not detach its guest.
    #[error(
        "Guest {name:?} was not detached within {waited_ms} ms and stays attached: its QEMU, or its helper, does \
         not answer (balancer ps). Detach it again once it does"
    )]
    DetachDeadline {
        /// The guest.
        name: String,
        /// How long was waited, milliseconds.
        waited_ms: u64,
    },
    /// A guest's `vmm` takes no messages.
    #[error("The vmm of guest {0:?} takes no messages; nothing was changed")]
    Deaf(String),
    /// A guest did not answer.
    #[error("Guest {name:?} did not compare its frame table with the kernel within {waited_ms} ms")]
    Deadline {
        /// The guest.
        name: String,
        /// How long was waited, milliseconds.
        waited_ms: u64,
    },
}

/// Reasons in one line.
fn sentence(reasons: &[StateError]) -> String {
    let reasons: Vec<String> = reasons.iter().map(StateError::chain).collect();
    reasons.join("; ")
}

/// Reasons against a change, all of them, so that a client need not try again for each.
#[derive(Debug, Default)]
pub(super) struct Reasons(Vec<StateError>);

impl Reasons {
    /// Writes down what a check found.
    pub(super) fn note<E: Into<StateError>>(&mut self, checked: Result<(), E>) -> &mut Self {
        self.0.extend(checked.err().map(Into::into));
        self
    }

    /// Writes down what a check found that finds several.
    pub(super) fn note_all<E: Into<StateError>>(&mut self, found: impl IntoIterator<Item = E>) -> &mut Self {
        self.0.extend(found.into_iter().map(Into::into));
        self
    }

    /// Fails if there is any.
    pub(super) fn checked(&mut self) -> Result<(), StateError> {
        let mut found = std::mem::take(&mut self.0);
        match found.len() {
            0 | 1 => found.pop().map_or(Ok(()), Err),
            _ => Err(StateError::Many(found)),
        }
    }
}

impl StateError {
    /// The reasons one by one.
    #[must_use]
    pub fn reasons(&self) -> &[StateError] {
        match self {
            Self::Many(reasons) => reasons,
            one => std::slice::from_ref(one),
        }
    }

    /// The error and its causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        protocol::error_chain::chain(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_limit_is_shown_once() {
        let bound = "must be at most 5".into();
        let broken = LimitsError { field: "min_bytes", value: "7".into(), bound, by_itself: false };
        let limits = || TreeError::Limits { path: "/a".parse().unwrap(), broken: broken.clone() };
        let one = StateError::from(limits());
        assert_eq!(one.chain(), format!("/a: {broken}"));
        let both = StateError::Many(vec![limits().into(), limits().into()]);
        assert_eq!(both.chain(), format!("/a: {broken}; /a: {broken}"));
        assert_eq!(StateError::Knob(broken.clone()).chain(), broken.to_string());
    }
}
