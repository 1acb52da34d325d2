//! The manifest of an image: its origin and its size.

use super::error::failed;
use super::{Store, StoreError};
use crate::source::LayerOrigin;
use protocol::image::Digest;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

/// The manifest of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name.
    pub digest: Digest,
    /// Its length: a multiple of 2 MiB.
    pub bytes: u64,
    /// What it was built from: the canonical path of a folder or tar, or `PATH@sha256:..` of a manifest in an OCI image
    /// layout. An image that is built again from elsewhere keeps its first origin, since bindings refer to it.
    pub origin: String,
    /// Which layer of an OCI image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<LayerOrigin>,
    /// Regular files.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links, devices, pipes and sockets.
    pub others: u64,
    /// Bytes of the regular files.
    pub content_bytes: u64,
}

impl Store {
    /// Reads the manifest of an image.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn manifest(&self, digest: &Digest) -> Result<Manifest, StoreError> {
        if !self.image_path(digest).exists() {
            return Err(StoreError::Unknown { text: digest.to_string() });
        }
        let manifest = read(&self.manifest_path(digest))?;
        if manifest.digest == *digest {
            return Ok(manifest);
        }
        let what = format!("it is that of {}", manifest.digest);
        Err(StoreError::Manifest { path: self.manifest_path(digest), what })
    }

    /// All images, by their digests.
    ///
    /// # Errors
    /// When the store or a manifest cannot be read.
    pub fn list(&self) -> Result<Vec<Manifest>, StoreError> {
        let mut list = Vec::new();
        for digest in self.digests()? {
            match self.manifest(&digest) {
                // Removed since its name was read.
                Err(StoreError::Unknown { .. }) => {}
                other => list.push(other?),
            }
        }
        list.sort_by_key(|manifest| manifest.digest);
        Ok(list)
    }

    pub(super) fn digests(&self) -> Result<Vec<Digest>, StoreError> {
        let images = self.images();
        let mut digests = Vec::new();
        for entry in fs::read_dir(&images).map_err(failed("read", &images))? {
            let name = entry.map_err(failed("read", &images))?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(".erofs"));
            digests.extend(hex.and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok()));
        }
        Ok(digests)
    }
}

fn read(path: &Path) -> Result<Manifest, StoreError> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::Manifest {
                path: path.into(),
                what: "it is gone; build the image again".into(),
            });
        }
        text => text.map_err(failed("read", path))?,
    };
    serde_json::from_slice(&text)
        .map_err(|error| StoreError::Manifest { path: path.into(), what: error.to_string() })
}
