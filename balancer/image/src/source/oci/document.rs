//! The documents of an image: index, manifest, configuration (OCI image specification 1.1; Docker's are alike).

use super::Form;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// What layers are named by: `tar` follows, or a compression of it.
const LAYERS: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.",
    "application/vnd.oci.image.layer.nondistributable.v1.",
    "application/vnd.docker.image.rootfs.diff.",
    "application/vnd.docker.image.rootfs.foreign.diff.",
];
/// Annotations of what builders and signers store next to an image.
const REFERENCES: [&str; 2] = ["vnd.docker.reference.type", "dev.cosignproject.cosign/kind"];

/// The platform of guests.
const PLATFORM: (&str, &str) = ("linux", "amd64");

/// `null` is written for what is empty (Go).
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    pub digest: String,
    pub size: u64,
    pub platform: Option<Platform>,
    #[serde(default, deserialize_with = "or_default")]
    artifact_type: String,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, Option<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    pub variant: String,
}

/// An index or a manifest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub manifests: Option<Vec<Descriptor>>,
    layers: Option<Vec<Descriptor>>,
    pub config: Option<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    artifact_type: String,
    #[serde(default, deserialize_with = "or_default")]
    schema_version: u64,
}

/// What of a configuration counts.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Config {
    #[serde(flatten)]
    pub platform: Platform,
    #[serde(default, deserialize_with = "or_default")]
    pub rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct RootFs {
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<String>,
}

/// What a descriptor of an index leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leads {
    ToIndex,
    ToImage,
    /// The document says it.
    Unknown,
    /// An attestation, a signature or another artifact.
    Elsewhere,
}

impl Descriptor {
    /// Of a document that has a name instead of a digest.
    pub(super) fn of_file(name: &str) -> Self {
        Self { digest: name.into(), ..Self::default() }
    }

    pub(super) fn media_type(&self) -> &str {
        &self.media_type
    }

    pub(super) fn leads(&self) -> Leads {
        // Attestations of builders are listed next to images, for a platform that does not exist.
        let nowhere = self.platform.as_ref().is_some_and(|own| own.os == "unknown");
        let kind = REFERENCES.iter().find_map(|key| self.annotations.get(*key)?.as_deref());
        let refers = kind.is_some_and(|kind| !kind.ends_with("/image") && !kind.ends_with("/imageIndex"));
        match self.media_type.as_str() {
            _ if nowhere || refers || !self.artifact_type.is_empty() => Leads::Elsewhere,
            index if INDEXES.contains(&index) => Leads::ToIndex,
            manifest if MANIFESTS.contains(&manifest) => Leads::ToImage,
            "" => Leads::Unknown,
            _ => Leads::Elsewhere,
        }
    }

    /// For people: name, platform and digest.
    pub(super) fn shown(&self) -> String {
        let platform = self.platform.as_ref().map_or("any".into(), Platform::shown);
        let names = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];
        let name = names.iter().find_map(|name| self.annotations.get(*name)?.as_deref());
        format!("{}{platform} {}", name.map(|name| format!("{name} ")).unwrap_or_default(), self.digest)
    }

    /// For people: what it is instead of an image.
    pub(super) fn shown_other(&self) -> String {
        let what = if self.artifact_type.is_empty() { &self.media_type } else { &self.artifact_type };
        let nowhere = self.platform.as_ref().is_some_and(|own| own.os == "unknown");
        let refers = REFERENCES.iter().find_map(|key| self.annotations.get(*key)?.as_deref());
        let what = refers.unwrap_or(if nowhere { "attestation" } else { what });
        format!("{what} {} (not an image)", self.digest)
    }

    /// The same as an artifact of this type.
    pub(super) fn into_artifact(mut self, of: &str) -> Self {
        self.artifact_type = of.into();
        self
    }
}

impl Platform {
    pub(super) fn suits(&self) -> bool {
        (self.os.as_str(), self.architecture.as_str()) == PLATFORM
    }

    pub(super) fn shown(&self) -> String {
        let variant = if self.variant.is_empty() { String::new() } else { format!("/{}", self.variant) };
        format!("{}/{}{variant}", self.os, self.architecture)
    }

    /// Order of variants: the one that every processor of the architecture runs comes first.
    pub(super) fn level(&self) -> &str {
        if self.variant == "v1" { "" } else { &self.variant }
    }
}

impl Document {
    pub(super) fn layers(&self) -> &[Descriptor] {
        self.layers.as_deref().unwrap_or_default()
    }

    /// The type of the artifact that a manifest describes; `None` for one of an image.
    pub(super) fn artifact(&self) -> Option<&str> {
        let config = self.config.as_ref().map_or("", |config| config.media_type.as_str());
        if !self.artifact_type.is_empty() {
            return Some(&self.artifact_type);
        }
        if !config.is_empty() && !CONFIGS.contains(&config) {
            return Some(config);
        }
        let first =
            self.layers().first().filter(|_| !self.layers().iter().any(|layer| is_layer(&layer.media_type)));
        first.map(|layer| layer.media_type.as_str())
    }

    /// True for a manifest of before 2016, which lists its layers from above and says nothing of what they are.
    pub(super) fn is_schema_1(&self) -> bool {
        self.schema_version == 1
    }
}

/// True for the media type of a tar, whatever its compression; an encrypted one cannot be read.
pub(super) fn is_layer(media_type: &str) -> bool {
    let rest = LAYERS.iter().find_map(|prefix| media_type.strip_prefix(prefix));
    media_type.is_empty() || rest.is_some_and(|rest| rest.starts_with("tar") && !rest.ends_with("encrypted"))
}

/// True for the configuration of a container runtime.
pub(super) fn is_bundle(text: &[u8]) -> bool {
    let value: Option<serde_json::Value> = serde_json::from_slice(text).ok();
    value.is_some_and(|value| value["ociVersion"].is_string())
}

/// What a file `manifest.json` is, if it describes an image.
pub(super) fn form_of_manifest(text: &[u8]) -> Option<Form> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let images = value.as_array().filter(|images| !images.is_empty());
    if images.is_some_and(|images| {
        images.iter().all(|image| {
            image["Layers"].is_array() || image["Layers"].is_null() && image["Config"].is_string()
        })
    }) {
        return Some(Form::Saved);
    }
    let lists = ["layers", "manifests", "fsLayers"].iter().any(|key| !value[key].is_null());
    (value["schemaVersion"].is_u64() && lists).then_some(Form::Directory)
}
