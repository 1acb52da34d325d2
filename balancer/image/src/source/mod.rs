//! Where images come from.

mod archive;
mod decompress;
mod dir;
mod grow;
mod layer;
mod oci;
mod stack;
mod tar;
mod walk;

pub use dir::Dir;
pub use oci::OciError;
pub use tar::TarError;

use super::error::BuildError;
use super::tree::{InodeId, Traversal, Tree};
use super::watch::Watch;
use archive::Part;
use decompress::Compression;
use layer::Alone;
use oci::{Blobs, Form};
use protocol::image::IMAGES_MAX;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

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
    /// The digest of the layer, as the layout names it.
    pub digest: String,
    /// Of several layers in one image: the uppermost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<usize>,
}

/// The sources behind a path, lowest layer first: a folder; a tar, as it is or compressed with gzip, zstd or xz; or an
/// image in either of them ([`oci`] has the forms), one source per layer, [`IMAGES_MAX`] at most. Tars are read once
/// for it. `spool` is a folder for an unnamed file: an image in a compressed tar is unpacked there.
///
/// # Errors
/// When it is none of them, or an image or a tar that cannot be used.
pub fn open(path: &Path, spool: &Path, watch: &mut Watch<'_>) -> Result<Vec<Box<dyn Source>>, BuildError> {
    let read = |source| BuildError::Read { path: path.display().to_string(), source };
    let path = fs::canonicalize(path).map_err(read)?;
    let metadata = fs::metadata(&path).map_err(read)?;
    if metadata.is_file() {
        return open_tar(&path, spool, watch);
    }
    if !metadata.is_dir() {
        return Err(BuildError::NoSource(path));
    }
    let blobs = Blobs::Folder(path.clone());
    match blobs.form()? {
        Some(form) => open_image(&blobs, form, watch),
        None => Ok(vec![Box::new(Dir::open(&path)?)]),
    }
}

fn open_tar(path: &Path, spool: &Path, watch: &mut Watch<'_>) -> Result<Vec<Box<dyn Source>>, BuildError> {
    let part = Part::whole(oci::open_file(path)?);
    let Alone { known, tree, offsets } = layer::alone(path.display().to_string(), part, watch)?;
    let names = ["oci-layout", "index.json", "manifest.json", "config.json"];
    if !names.iter().any(|name| tree.lookup(tree.root(), name.as_bytes()).is_some()) {
        return Ok(vec![Box::new(Alone { known, tree, offsets }.into_source())]);
    }
    let archive = &known.archive;
    let file = match archive.compression {
        Compression::None => Arc::clone(&archive.part.file),
        compression => Arc::new(unpack(&archive.part, compression, spool, watch)?),
    };
    let blobs = Blobs::Tar { path: path.into(), file, tree, offsets };
    if let Some(form) = blobs.form()? {
        return open_image(&blobs, form, watch);
    }
    match blobs {
        Blobs::Tar { tree, offsets, .. } => Ok(vec![Box::new(Alone { known, tree, offsets }.into_source())]),
        Blobs::Folder(path) => Err(BuildError::NoSource(path)),
    }
}

fn open_image(blobs: &Blobs, form: Form, watch: &mut Watch<'_>) -> Result<Vec<Box<dyn Source>>, BuildError> {
    let image = oci::open(blobs, form)?;
    let layers = layer::stack(&image.name, image.layers, IMAGES_MAX, watch)?;
    Ok(layers.into_iter().map(|layer| Box::new(layer) as Box<dyn Source>).collect())
}

/// A compressed tar in an unnamed file: its parts are read in any order.
fn unpack(
    part: &Part,
    compression: Compression,
    spool: &Path,
    watch: &mut Watch<'_>,
) -> Result<File, BuildError> {
    let failed = |bytes| move |error| BuildError::write(spool, bytes, error);
    let mut file = tempfile::tempfile_in(spool).map_err(failed(0))?;
    let (mut reader, _) = compression.reader(part.reader());
    let (mut buffer, mut bytes) = (vec![0; 1 << 18], 0);
    loop {
        let count = reader
            .read(&mut buffer)
            .map_err(|source| BuildError::Read { path: "the compressed tar".into(), source })?;
        if count == 0 {
            return Ok(file);
        }
        bytes += count as u64;
        file.write_all(&buffer[..count]).map_err(failed(bytes))?;
        watch.step(0, count as u64)?;
    }
}

#[cfg(test)]
pub(crate) use tests::odd_archive;

#[cfg(test)]
#[path = "source_test.rs"]
mod tests;
