//! Errors of a store.

use protocol::image::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Why a store refuses a request.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Others could change images.
    #[error(
        "The store {folder} (owner {uid}, mode {mode:o}) could be changed by others: make it yours and close it \
         (chmod go-w), or name another"
    )]
    Foreign {
        /// The store, or a folder in it.
        folder: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its mode.
        mode: u32,
    },
    /// No image is named so.
    #[error("No image {text} in the store")]
    Unknown {
        /// What was given.
        text: String,
    },
    /// It cannot name an image.
    #[error(
        "{text:?} names no image: write sha256: and 64 hexadecimal digits, at least 8 of them alone, or a path in the \
         store"
    )]
    Malformed {
        /// What was given.
        text: String,
    },
    /// A short form that means several images.
    #[error("{text} means several images: {choices}")]
    Ambiguous {
        /// What was given.
        text: String,
        /// Their digests.
        choices: String,
    },
    /// A path of something else.
    #[error("{path} is not an image of the store {folder}")]
    Outside {
        /// What was given.
        path: PathBuf,
        /// The store.
        folder: PathBuf,
    },
    /// It cannot be the name of a domain.
    #[error("{name:?} cannot name a trust domain: 1 to 255 bytes without a slash, a NUL or a dot in front")]
    Domain {
        /// What was given.
        name: String,
    },
    /// A process has it open.
    #[error("Image {digest} is in use: stop the guests that map it first")]
    InUse {
        /// Which.
        digest: Digest,
    },
    /// Its content does not have the digest in its name.
    #[error("Image {digest} is damaged: its content has the digest {found}; build it again")]
    Damaged {
        /// Its name.
        digest: Digest,
        /// Its content's.
        found: Digest,
    },
    /// A manifest is none.
    #[error("{path} is not a manifest of an image: {what}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Its defect.
        what: String,
    },
    /// The system refused.
    #[error("Cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.into();
    move |source| StoreError::Io { doing, path, source }
}
