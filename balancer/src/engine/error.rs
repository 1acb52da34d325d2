//! Why a request is refused.

use crate::journal::JournalError;
use crate::tree::TreeError;

/// Why the engine refuses a request. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The tree forbids it.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The journal cannot hold it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No such guest.
    #[error("There is no guest {0:?}")]
    NoGuest(String),
    /// A guest did not answer.
    #[error("Guest {name:?} did not compare its frame table with the kernel within {waited_ms} ms")]
    Deadline {
        /// The guest.
        name: String,
        /// How long was waited, milliseconds.
        waited_ms: u64,
    },
}

impl EngineError {
    /// The error and its causes in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }
}
