//! Where images come from.

mod archive;
mod decompress;
mod dir;
mod grow;
mod layer;
mod oci;
mod tar;

pub use dir::Dir;
pub use layer::Layer;
pub use oci::OciError;
pub use tar::TarError;

use super::error::BuildError;
use super::tree::{InodeId, Traversal, Tree};
use super::watch::Watch;
use std::fs;
use std::io::Read;
use std::path::Path;

/// A receiver of the contents of regular files: each once, in any order.
pub type Sink<'a> = dyn FnMut(InodeId, &mut dyn Read) -> Result<(), BuildError> + 'a;

/// A tree with contents. Asked for the tree first, then for the contents.
pub trait Source {
    /// What the image is built from, for its manifest.
    fn origin(&self) -> Origin;

    /// Names, modes and lengths.
    ///
    /// # Errors
    /// When the source cannot be read, or must not become an image.
    fn tree(&mut self, watch: &mut Watch<'_>) -> Result<Tree, BuildError>;

    /// Hands the contents of every regular file in `order` to `sink`.
    ///
    /// # Errors
    /// When it cannot be read or changed, and errors of `sink`.
    fn contents(
        &mut self,
        tree: &Tree,
        traversal: &Traversal<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), BuildError>;
}

/// What an image was built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The canonical path of the folder or tar, or `PATH@sha256:..` of a manifest in an OCI image layout.
    pub name: String,
    /// Of a layer: its place from below, media type and digest.
    pub layer: Option<LayerOrigin>,
}

/// Which layer of an OCI image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerOrigin {
    /// From 0, the lowest.
    pub index: usize,
    /// Its media type.
    pub media_type: String,
    /// The digest of the compressed layer, as the layout names it.
    pub digest: String,
}

/// The sources behind a path, lowest layer first: a folder, unless it holds a file `oci-layout`; a tar, as it is or
/// compressed with gzip or zstd.
///
/// # Errors
/// When it is none of them, or an OCI image layout that cannot be used.
pub fn open(path: &Path) -> Result<Vec<Box<dyn Source>>, BuildError> {
    let read = |source| BuildError::Read { path: path.display().to_string(), source };
    let path = fs::canonicalize(path).map_err(read)?;
    let metadata = fs::metadata(&path).map_err(read)?;
    if metadata.is_file() {
        return Ok(vec![Box::new(Layer::of_tar(&path)?)]);
    }
    if !metadata.is_dir() {
        return Err(BuildError::NoSource(path));
    }
    if path.join("oci-layout").is_file() {
        let layers = oci::layers(&path)?;
        return Ok(layers.into_iter().map(|layer| Box::new(layer) as Box<dyn Source>).collect());
    }
    Ok(vec![Box::new(Dir::open(&path)?)])
}

#[cfg(test)]
#[path = "source_test.rs"]
mod tests;
