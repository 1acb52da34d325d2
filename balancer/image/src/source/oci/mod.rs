//! Images in files: which one it is, and its layers.
//!
//! | what | index | blobs |
//! |---|---|---|
//! | OCI image layout (`oci-layout`; builders leave the marker out) | `index.json` | `blobs/sha256/HEX` |
//! | `docker save` since version 25, `oci-archive:` | as above, in a tar | as above |
//! | `docker save` before, `docker-archive:` | `manifest.json`: a list of images | the names that it says |
//! | `dir:`, `docker-dir` | `manifest.json`: a manifest or an index | `HEX`, `HEX.manifest.json`, `HEX.tar` |
//!
//! A folder may be in a tar, a tar may be compressed. Every blob is read by its digest, so what was verified is what is
//! used; the layers of an old `docker save` by the digest of the tar in them (`rootfs.diff_ids`).

mod blobs;
mod choose;
mod document;
mod saved;

pub(super) use blobs::{Blobs, open as open_file};

use super::LayerOrigin;
use super::archive::{Archive, Part, Vouched};
use super::layer::Blob;
use choose::choose;
use document::{Descriptor, Document, is_layer};
use std::io;
use std::path::PathBuf;

/// Most layers of an image; overlayfs takes 500.
const LAYERS_MAX: usize = 500;

/// Why an OCI image layout is not used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum OciError {
    #[error("{path} is refused: {what}")]
    Document { path: PathBuf, what: String },
    #[error("Cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} has no image for linux/amd64, only: {choices}; pull or build it for that platform")]
    Platform { path: PathBuf, choices: String },
    #[error(
        "{path} has several images for linux/amd64: copy one of them into a layout of its own: {choices}"
    )]
    Ambiguous { path: PathBuf, choices: String },
    #[error("Layer {index} has the media type {media_type}; tar, tar+gzip and tar+zstd are read")]
    MediaType { index: usize, media_type: String },
    #[error(
        "{path} is a bundle of a container runtime and not an image: build the folder {path}/rootfs instead"
    )]
    Bundle { path: PathBuf },
}

/// An image: its name, and its layers, the lowest first.
pub(super) struct Image {
    pub name: String,
    pub layers: Vec<Blob>,
}

/// What a folder, or a tar as one, holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An index and blobs by digest.
    Layout,
    /// A list of images with the names of their layers.
    Saved,
    /// One manifest, and blobs named by digest next to it.
    Directory,
}

impl Form {
    /// The form of an image; `None` if it is a root.
    ///
    /// # Errors
    /// When it is something else, which is named.
    pub(super) fn of(blobs: &Blobs) -> Result<Option<Self>, OciError> {
        if blobs.has("oci-layout") || (blobs.has("index.json") && blobs.has_folder("blobs")) {
            return Ok(Some(Self::Layout));
        }
        if blobs.has("config.json")
            && blobs.has_folder("rootfs")
            && document::is_bundle(&blobs.text("config.json")?)
        {
            return Err(OciError::Bundle { path: blobs.path() });
        }
        if !blobs.has("manifest.json") {
            return Ok(None);
        }
        // A root may have a file of this name.
        Ok(document::form_of_manifest(&blobs.text("manifest.json")?))
    }
}

/// The one image for this platform.
pub(super) fn open(blobs: &Blobs, form: Form) -> Result<Image, OciError> {
    match form {
        Form::Layout => open_index(blobs, "index.json"),
        Form::Saved => saved::open(blobs),
        Form::Directory => open_index(blobs, "manifest.json"),
    }
}

fn open_index(blobs: &Blobs, index: &str) -> Result<Image, OciError> {
    let (chosen, manifest) = choose(blobs, index)?;
    let count = manifest.layers().len();
    if count == 0 || count > LAYERS_MAX {
        let what =
            format!("it has {count} layers, must have 1 to {LAYERS_MAX}: save or build the image again");
        return Err(OciError::Document { path: blobs.path_of(&chosen)?, what });
    }
    let layer = |(index, layer): (usize, &Descriptor)| {
        let media_type = layer.media_type().to_owned();
        if !is_layer(&media_type) {
            return Err(OciError::MediaType { index, media_type });
        }
        let part = blobs.blob(layer)?;
        let origin = LayerOrigin { index, media_type, digest: layer.digest.clone(), last: None };
        blob(blobs, part, origin, Vouched::Stored(blobs.hex(layer)?.into()))
    };
    let layers = manifest.layers().iter().enumerate().map(layer).collect::<Result<_, _>>()?;
    Ok(Image { name: format!("{}@{}", blobs.path().display(), chosen.digest), layers })
}

/// A layer as an archive. Its first bytes say how it is compressed: media types are wrong now and then.
fn blob(blobs: &Blobs, part: Part, origin: LayerOrigin, vouched: Vouched) -> Result<Blob, OciError> {
    let name = format!("Layer {} ({})", origin.index, origin.digest);
    let path = || blobs.path().join(&origin.digest);
    let compression = part.compression().map_err(|source| OciError::Read { path: path(), source })?;
    let compression = compression
        .map_err(|what| OciError::Document { path: blobs.path(), what: format!("{name} is {what}") })?;
    Ok(Blob { archive: Archive { name, part, compression, vouched }, origin })
}

/// The digest of a text is this one.
fn is_digest(text: &[u8], hex: &str) -> Result<(), String> {
    use sha2::Digest;
    let found: String = sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    if found == hex { Ok(()) } else { Err(format!("its digest is {found}, not {hex}")) }
}

/// The manifest that is read of an image: with its layers, and its configuration.
type Chosen = (Descriptor, Document);
