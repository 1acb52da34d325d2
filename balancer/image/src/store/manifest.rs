//! The manifest of an image: its origin and its size.

use super::error::failed;
use super::{Store, StoreError};
use crate::source::LayerOrigin;
use crate::sparse;
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

/// What a store holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// Images, by their digests.
    pub images: Vec<Listed>,
    /// Images without a manifest that can be read, and why.
    pub damaged: Vec<(Digest, StoreError)>,
}

/// An image, and what it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its manifest.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// What it takes on the disk, bytes; less than its length where it has holes.
    pub disk_bytes: u64,
    /// Copies of it: one for each trust domain whose guests mapped it.
    pub copies: u64,
    /// What they take on the disk together, bytes. Blocks that the file system shares between copies are counted for
    /// each.
    pub copies_bytes: u64,
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

    /// All images, by their digests. One that is damaged hides no other one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        let mut digests = self.digests()?;
        digests.sort_unstable();
        for digest in digests {
            match self.manifest(&digest) {
                Ok(manifest) => listing.images.push(self.listed(manifest)),
                // Removed since its name was read.
                Err(StoreError::Unknown { .. }) => {}
                Err(error) => listing.damaged.push((digest, error)),
            }
        }
        Ok(listing)
    }

    fn listed(&self, manifest: Manifest) -> Listed {
        let taken = |path: &Path| fs::metadata(path).map_or(0, |metadata| sparse::taken(&metadata));
        let copies = self.copies(&manifest.digest).unwrap_or_default();
        let disk_bytes = taken(&self.image_path(&manifest.digest));
        let copies_bytes = copies.iter().map(|path| taken(path)).sum();
        Listed { manifest, disk_bytes, copies: copies.len() as u64, copies_bytes }
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
