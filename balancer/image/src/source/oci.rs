//! An OCI image layout (OCI image specification 1.1, `image-layout.md`): `index.json` names manifests, a manifest names
//! layers, and each is a file `blobs/sha256/HEX`. Every one is read by its digest, so what was verified is what is
//! used.

use super::LayerOrigin;
use super::decompress::Compression;
use super::layer::Layer;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Longest index or manifest: what registries take.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Most manifests that are read, with those of indexes in indexes.
const MANIFESTS_MAX: usize = 1000;
/// Most layers of an image; overlayfs takes 500, and a guest `IMAGES_MAX`.
const LAYERS_MAX: usize = 500;
/// The platform of guests.
const PLATFORM: (&str, &str) = ("linux", "amd64");

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

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
    #[error("{path} has no image for linux/amd64, only: {choices}")]
    Platform { path: PathBuf, choices: String },
    #[error(
        "{path} has several images for linux/amd64: copy one of them into a layout of its own: {choices}"
    )]
    Ambiguous { path: PathBuf, choices: String },
    #[error("Layer {index} has the media type {media_type}; tar, tar+gzip and tar+zstd are read")]
    MediaType { index: usize, media_type: String },
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

impl Descriptor {
    fn shown(&self) -> String {
        let platform = self.platform.as_ref();
        let platform = platform.map_or("any".into(), |own| format!("{}/{}", own.os, own.architecture));
        let name = self.annotations.get("org.opencontainers.image.ref.name");
        format!("{}{platform} {}", name.map(|name| format!("{name} ")).unwrap_or_default(), self.digest)
    }

    fn suits(&self) -> bool {
        self.platform.as_ref().is_none_or(|own| (own.os.as_str(), own.architecture.as_str()) == PLATFORM)
    }

    /// Attestations of builders are listed next to images, for a platform that does not exist.
    fn is_attestation(&self) -> bool {
        self.platform.as_ref().is_some_and(|own| own.os == "unknown")
    }
}

/// The layers of the one image for this platform, lowest first.
pub(super) fn layers(layout: &Path) -> Result<Vec<Layer>, OciError> {
    let chosen = choose(layout)?;
    let manifest: Manifest = document(layout, &chosen)?;
    if manifest.layers.is_empty() || manifest.layers.len() > LAYERS_MAX {
        let what = format!("it has {} layers, must have 1 to {LAYERS_MAX}", manifest.layers.len());
        return Err(OciError::Document { path: blob_path(layout, &chosen)?, what });
    }
    let image = format!("{}@{}", layout.display(), chosen.digest);
    let layer = |(index, layer): (usize, &Descriptor)| {
        let compression = compression(&layer.media_type)
            .ok_or_else(|| OciError::MediaType { index, media_type: layer.media_type.clone() })?;
        let file = blob(layout, layer)?;
        let (media_type, digest) = (layer.media_type.clone(), layer.digest.clone());
        let hex = hex(layout, layer)?;
        Ok(Layer::of_blob(file, compression, hex, &image, LayerOrigin { index, media_type, digest }))
    };
    manifest.layers.iter().enumerate().map(layer).collect()
}

fn compression(media_type: &str) -> Option<Compression> {
    let oci = media_type.strip_prefix("application/vnd.oci.image.layer.v1.");
    match oci.or(media_type.strip_prefix("application/vnd.docker.image.rootfs.diff."))? {
        "tar" => Some(Compression::None),
        "tar+gzip" | "tar.gzip" => Some(Compression::Gzip),
        "tar+zstd" | "tar.zstd" => Some(Compression::Zstd),
        _ => None,
    }
}

/// The manifest for this platform.
fn choose(layout: &Path) -> Result<Descriptor, OciError> {
    let path = layout.join("index.json");
    let file = open(&path)?;
    let mut text = Vec::new();
    file.take(DOCUMENT_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|source| OciError::Read { path: path.clone(), source })?;
    let mut waiting = parse::<Index>(&path, &text)?.manifests;
    let (mut found, mut seen) = (Vec::<Descriptor>::new(), 0);
    while let Some(next) = waiting.pop() {
        seen += 1;
        if seen + waiting.len() > MANIFESTS_MAX {
            let what = format!("it leads to more than {MANIFESTS_MAX} manifests");
            return Err(OciError::Document { path, what });
        }
        if INDEXES.contains(&next.media_type.as_str()) {
            waiting.extend(document::<Index>(layout, &next)?.manifests);
        } else if MANIFESTS.contains(&next.media_type.as_str())
            && !next.is_attestation()
            && !found.iter().any(|other| other.digest == next.digest)
        {
            found.push(next);
        }
    }
    let listed = |of: &[Descriptor]| of.iter().map(Descriptor::shown).collect::<Vec<_>>().join(", ");
    let suitable: Vec<_> = found.iter().filter(|found| found.suits()).cloned().collect();
    match suitable.as_slice() {
        [one] => Ok(one.clone()),
        [] if found.is_empty() => {
            Err(OciError::Document { path, what: "it does not name a manifest of an image".into() })
        }
        [] => Err(OciError::Platform { path: layout.into(), choices: listed(&found) }),
        several => Err(OciError::Ambiguous { path: layout.into(), choices: listed(several) }),
    }
}

fn document<T: DeserializeOwned>(layout: &Path, descriptor: &Descriptor) -> Result<T, OciError> {
    let path = blob_path(layout, descriptor)?;
    let refuse = |what: String| Err(OciError::Document { path: path.clone(), what });
    if descriptor.size > DOCUMENT_BYTES_MAX {
        return refuse(format!("it has {} bytes, at most {DOCUMENT_BYTES_MAX} are read", descriptor.size));
    }
    let mut text = Vec::new();
    blob(layout, descriptor)?
        .take(descriptor.size)
        .read_to_end(&mut text)
        .map_err(|source| OciError::Read { path: path.clone(), source })?;
    let found: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = hex(layout, descriptor)?;
    if found != expected {
        return refuse(format!("its digest is {found}, not {expected}"));
    }
    parse(&path, &text)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, OciError> {
    serde_json::from_slice(text)
        .map_err(|error| OciError::Document { path: path.into(), what: error.to_string() })
}

/// The digits of a digest; they become the name of a file, so they are checked.
fn hex<'a>(layout: &Path, descriptor: &'a Descriptor) -> Result<&'a str, OciError> {
    let hex = descriptor
        .digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
    hex.ok_or_else(|| {
        let what = format!("{:?} is no digest sha256:..", descriptor.digest);
        OciError::Document { path: layout.into(), what }
    })
}

fn blob_path(layout: &Path, descriptor: &Descriptor) -> Result<PathBuf, OciError> {
    Ok(layout.join("blobs/sha256").join(hex(layout, descriptor)?))
}

/// A blob of the declared length.
fn blob(layout: &Path, descriptor: &Descriptor) -> Result<File, OciError> {
    let path = blob_path(layout, descriptor)?;
    let file = open(&path)?;
    let bytes = file.metadata().map_err(|source| OciError::Read { path: path.clone(), source })?.len();
    if bytes == descriptor.size {
        return Ok(file);
    }
    Err(OciError::Document { path, what: format!("it has {bytes} bytes, not {}", descriptor.size) })
}

/// Opens a regular file; a pipe must not make us wait.
fn open(path: &Path) -> Result<File, OciError> {
    let failed = |source| OciError::Read { path: path.into(), source };
    let file = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        return Ok(file);
    }
    Err(OciError::Document { path: path.into(), what: "it is not a regular file".into() })
}
