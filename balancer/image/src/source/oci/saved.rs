//! What `docker save` wrote before version 25, and `docker-archive:`: `manifest.json` is a list of images with the
//! names of their layers.

use super::document::Config;
use super::{Blob, Blobs, Image, LAYERS_MAX, LayerOrigin, OciError, Vouched, blob};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl Saved {
    fn shown(&self) -> String {
        match self.repo_tags.as_deref() {
            Some([first, ..]) => first.clone(),
            _ => self.config.clone(),
        }
    }
}

pub(super) fn open(blobs: &Blobs) -> Result<Image, OciError> {
    let path = blobs.path().join("manifest.json");
    let list: Vec<Saved> = blobs.parse(&path, &blobs.text("manifest.json")?)?;
    let read = |saved: Saved| -> Result<(Saved, Config), OciError> {
        let config = blobs.parse(&path.with_file_name(&saved.config), &blobs.text(&saved.config)?)?;
        Ok((saved, config))
    };
    let images: Vec<(Saved, Config)> = list.into_iter().map(read).collect::<Result<_, _>>()?;
    let suits = |config: &Config| config.platform.architecture.is_empty() || config.platform.suits();
    let shown = |(saved, config): &(Saved, Config)| format!("{} {}", saved.shown(), config.platform.shown());
    let choices = images.iter().map(shown).collect::<Vec<_>>().join(", ");
    let mut suitable: Vec<_> = images.into_iter().filter(|(_, config)| suits(config)).collect();
    let path = blobs.path();
    match suitable.len() {
        0 => Err(OciError::Platform { path, choices }),
        1 => {
            let (saved, config) = suitable.remove(0);
            Ok(Image {
                name: format!("{}@{}", path.display(), saved.config),
                layers: layers(blobs, &saved, &config)?,
            })
        }
        _ => Err(OciError::Ambiguous { path, choices }),
    }
}

fn layers(blobs: &Blobs, saved: &Saved, config: &Config) -> Result<Vec<Blob>, OciError> {
    let names = saved.layers.as_deref().unwrap_or_default();
    let digests = &config.rootfs.diff_ids;
    let path = || blobs.path().join("manifest.json");
    if names.is_empty() || names.len() > LAYERS_MAX {
        let what = format!("it has {} layers, must have 1 to {LAYERS_MAX}", names.len());
        return Err(OciError::Document { path: path(), what });
    }
    if digests.len() != names.len() {
        let what =
            format!("it names {} layers, {} has digests of {}", names.len(), saved.config, digests.len());
        return Err(OciError::Document { path: path(), what });
    }
    let layer = |(index, (name, digest)): (usize, (&String, &String))| {
        let hex = digest.strip_prefix("sha256:").ok_or_else(|| OciError::Document {
            path: blobs.path().join(&saved.config),
            what: format!("{digest:?} is not a digest sha256:.."),
        })?;
        let media_type = "application/vnd.docker.image.rootfs.diff.tar".into();
        let origin = LayerOrigin { index, media_type, digest: digest.clone(), last: None };
        blob(blobs, blobs.open(name)?, origin, Vouched::Tar(hex.into()))
    };
    names.iter().zip(digests).enumerate().map(layer).collect()
}
