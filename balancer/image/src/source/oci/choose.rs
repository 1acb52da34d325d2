//! Which image of an index: the one for the platform of guests.

use super::document::{Config, Descriptor, Document, Leads, Platform};
use super::{Blobs, Chosen, OciError};

/// Most manifests that are read, with those of indexes in indexes.
const MANIFESTS_MAX: usize = 1000;

/// What an index leads to.
#[derive(Default)]
struct Found {
    images: Vec<Descriptor>,
    others: Vec<Descriptor>,
}

/// The image for this platform, from an index or a manifest of this name.
pub(super) fn choose(blobs: &Blobs, name: &str) -> Result<Chosen, OciError> {
    let path = blobs.path();
    let text = blobs.text(name)?;
    let top: Document = blobs.parse(&blobs.path().join(name), &text)?;
    let Some(manifests) = top.manifests else {
        if top.layers().is_empty() && name == "index.json" {
            let what = "it does not name a manifest of an image".into();
            return Err(OciError::Document { path: path.join(name), what });
        }
        return single(blobs, name, top);
    };
    let mut found = gather(blobs, name, manifests)?;
    for image in &mut found.images {
        if image.platform.is_none() {
            identify(blobs, image, &mut found.others)?;
        }
    }
    found.images.retain(|image| image.leads() != Leads::Elsewhere);
    let listed = |of: &[Descriptor]| of.iter().map(Descriptor::shown).collect::<Vec<_>>().join(", ");
    let others = found.others.iter().map(Descriptor::shown_other).collect::<Vec<_>>().join(", ");
    let suits = |image: &&Descriptor| image.platform.as_ref().is_none_or(Platform::suits);
    let suitable: Vec<Descriptor> = found.images.iter().filter(suits).cloned().collect();
    match least(&suitable).as_slice() {
        [one] => {
            let manifest: Document = blobs.document(one)?;
            match manifest.artifact() {
                Some(kind) => {
                    Err(OciError::Platform { path, choices: one.clone().into_artifact(kind).shown_other() })
                }
                None => Ok((one.clone(), manifest)),
            }
        }
        [] if found.images.is_empty() && others.is_empty() => {
            let what = "it does not name a manifest of an image".into();
            Err(OciError::Document { path: path.join(name), what })
        }
        [] if found.images.is_empty() => Err(OciError::Platform { path, choices: others }),
        [] => Err(OciError::Platform { path, choices: listed(&found.images) }),
        several => Err(OciError::Ambiguous { path, choices: listed(several) }),
    }
}

/// Of images for one platform those of the variant that the most processors run.
fn least(images: &[Descriptor]) -> Vec<Descriptor> {
    let level = |image: &Descriptor| image.platform.as_ref().map_or(String::new(), |own| own.level().into());
    let least = images.iter().map(level).min();
    images.iter().filter(|image| Some(level(image)) == least).cloned().collect()
}

/// All that an index leads to, each once.
fn gather(blobs: &Blobs, name: &str, manifests: Vec<Descriptor>) -> Result<Found, OciError> {
    let (mut found, mut seen, mut waiting) = (Found::default(), 0, manifests);
    while let Some(next) = waiting.pop() {
        seen += 1;
        if seen + waiting.len() > MANIFESTS_MAX {
            let what = format!("it leads to more than {MANIFESTS_MAX} manifests");
            return Err(OciError::Document { path: blobs.path().join(name), what });
        }
        let leads = match next.leads() {
            Leads::Unknown if blobs.document::<Document>(&next)?.manifests.is_some() => Leads::ToIndex,
            Leads::Unknown => Leads::ToImage,
            known => known,
        };
        let list = match leads {
            Leads::ToIndex => {
                waiting.extend(blobs.document::<Document>(&next)?.manifests.unwrap_or_default());
                continue;
            }
            Leads::Elsewhere => &mut found.others,
            _ => &mut found.images,
        };
        if !list.iter().any(|other| other.digest == next.digest) {
            list.push(next);
        }
    }
    Ok(found)
}

/// Reads what an index does not say of an image: its platform, or that it is something else.
fn identify(blobs: &Blobs, image: &mut Descriptor, others: &mut Vec<Descriptor>) -> Result<(), OciError> {
    let manifest: Document = blobs.document(image)?;
    if let Some(kind) = manifest.artifact() {
        *image = image.clone().into_artifact(kind);
        others.push(image.clone());
        return Ok(());
    }
    image.platform = platform(blobs, &manifest)?;
    Ok(())
}

/// The platform in the configuration of an image; `None` if it says none.
fn platform(blobs: &Blobs, manifest: &Document) -> Result<Option<Platform>, OciError> {
    let Some(config) = &manifest.config else { return Ok(None) };
    let config: Config = blobs.document(config)?;
    Ok(Some(config.platform).filter(|own| !own.architecture.is_empty()))
}

/// A manifest on its own, as `dir:` has it.
fn single(blobs: &Blobs, name: &str, manifest: Document) -> Result<Chosen, OciError> {
    let path = blobs.path();
    if manifest.is_schema_1() {
        let what = "its format (schema 1) is of before 2016: pull the image again with a program of today";
        return Err(OciError::Document { path: path.join(name), what: what.into() });
    }
    let own = Descriptor::of_file(name);
    if let Some(kind) = manifest.artifact() {
        return Err(OciError::Platform { path, choices: own.into_artifact(kind).shown_other() });
    }
    match platform(blobs, &manifest)?.filter(|own| !own.suits()) {
        Some(other) => Err(OciError::Platform { path, choices: other.shown() }),
        None => Ok((own, manifest)),
    }
}
