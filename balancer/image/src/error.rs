//! Errors of building an image. After each of them no part of the image stays.

use super::check::CheckError;
use super::source::{OciError, TarError};
use super::store::StoreError;
use super::tree::TreeError;
use std::io;
use std::path::PathBuf;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The build was cancelled.
    #[error("Cancelled: nothing was stored")]
    Cancelled,
    /// A file was not the same to its end.
    #[error("{path} changed while it was read: {what}")]
    Changed {
        /// The file.
        path: String,
        /// In which way.
        what: String,
    },
    /// The source cannot be read.
    #[error("Cannot read {path}")]
    Read {
        /// Which file of it.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store would become a part of the image.
    #[error("The store {store} lies in {folder}: an image cannot hold itself; name another with --store")]
    StoreInside {
        /// The store.
        store: PathBuf,
        /// What was to be built.
        folder: PathBuf,
    },
    /// Neither a folder nor a file was named.
    #[error("{0} is neither a folder nor a tar nor an OCI image layout")]
    NoSource(PathBuf),
    /// The tree cannot become an image.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The archive is damaged or hostile.
    #[error("{archive} is refused: {what}")]
    Tar {
        /// The file, or the layer.
        archive: String,
        /// What is wrong with it. A part of the text, since this is one sentence.
        what: TarError,
    },
    /// The OCI image layout is damaged or hostile, or has several images.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// There is no room for the image.
    #[error("No room for an image of {bytes} bytes in {folder}; no part of it was stored")]
    Full {
        /// Where it was to be.
        folder: PathBuf,
        /// Its length.
        bytes: u64,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The image cannot be written.
    #[error("Cannot write the image to {folder}")]
    Write {
        /// Where it was to be.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The image that was written fails its check.
    #[error("The image that was written fails its check")]
    Check(#[from] CheckError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BuildError {
    /// A failure to write `bytes` to `folder`.
    pub(super) fn write(folder: &std::path::Path, bytes: u64, source: io::Error) -> Self {
        let folder = folder.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { folder, bytes, source },
            _ => Self::Write { folder, source },
        }
    }
}
