//! Tars as sources: one on its own, or the layers of an image, each or several of them as one image.

use super::archive::{Archive, Part, Vouched, Walk};
use super::grow::Growing;
use super::stack::{Place, Stacked};
use super::tar::{Member, TarError};
use super::{LayerOrigin, Origin, Sink, Source};
use crate::IMAGE_BYTES_MAX;
use crate::error::BuildError;
use crate::tree::{InodeId, Traversal, Tree, TreeError};
use crate::watch::Watch;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};
use std::rc::Rc;

/// A layer of an image as its archive.
pub(super) struct Blob {
    pub archive: Archive,
    pub origin: LayerOrigin,
}

/// An archive whose members were read once.
#[derive(Debug)]
pub(super) struct Known {
    pub archive: Archive,
    /// The inode of each file, in the archive's order, and its length.
    members: Vec<(Option<InodeId>, u64)>,
}

/// A tree whose files are in archives.
pub(super) struct Layer {
    origin: Origin,
    tree: Tree,
    places: Vec<Option<Place>>,
    archives: Rc<Vec<Known>>,
}

/// A tar on its own as its tree, with the archive for the second reading.
pub(super) struct Alone {
    pub known: Known,
    pub tree: Tree,
    /// Where in the file the contents begin that lie there as they are.
    pub offsets: HashMap<InodeId, (u64, u64)>,
}

/// Reads a tar on its own.
pub(super) fn alone(name: String, part: Part, watch: &mut Watch<'_>) -> Result<Alone, BuildError> {
    let read = |source| BuildError::Read { path: name.clone(), source };
    let refuse = |what| BuildError::Tar { archive: name.clone(), what: TarError::Other { what } };
    let compression = part.compression().map_err(read)?.map_err(refuse)?;
    let archive = Archive { name, part, compression, vouched: Vouched::No };
    let below = Stacked::new(false);
    let mut growing = Growing::new(&archive, false, &below);
    let (members, offsets) = members(&archive, &mut growing, watch)?;
    let tree = growing.finish().tree;
    Ok(Alone { known: Known { archive, members }, tree, offsets })
}

impl Alone {
    pub(super) fn into_source(self) -> Layer {
        let origin = Origin { name: self.known.archive.name.clone(), layer: None };
        let mut places = vec![None; self.tree.len()];
        own_places(&mut places, &self.known, 0);
        Layer { origin, tree: self.tree, places, archives: Rc::new(vec![self.known]) }
    }
}

type Members = (Vec<(Option<InodeId>, u64)>, HashMap<InodeId, (u64, u64)>);

/// Reads an archive into a tree. Returns the inodes of its files, and where in the stream they begin.
fn members(
    archive: &Archive,
    growing: &mut Growing<'_>,
    watch: &mut Watch<'_>,
) -> Result<Members, BuildError> {
    let (mut total, mut members, mut offsets) = (0_u64, Vec::new(), HashMap::new());
    let mut buffer = vec![0; 1 << 18];
    let rest = archive.each(|member, contents| {
        let bytes = member.is_file().then_some(member.bytes);
        total = total.saturating_add(bytes.unwrap_or(0));
        if total > IMAGE_BYTES_MAX {
            return Err(TreeError::TooLarge.into());
        }
        for remark in &member.remarks {
            watch.warn(format!("{}: {:?}: {remark}", archive.name, String::from_utf8_lossy(&member.path)));
        }
        let offset = contents.is_plain().then(|| contents.at());
        let id = growing.add(member)?;
        if let (Some(id), Some(offset), Some(bytes)) = (id, offset, bytes) {
            offsets.insert(id, (offset, bytes));
        }
        members.extend(bytes.map(|bytes| (id, bytes)));
        watch.step(1, 0)?;
        skip(archive, contents, &mut buffer, watch)
    })?;
    if let Some(rest) = rest {
        watch.warn(rest);
    }
    Ok((members, offsets))
}

/// Reads on to the end of a member.
fn skip(
    archive: &Archive,
    contents: &mut Walk<'_>,
    buffer: &mut [u8],
    watch: &mut Watch<'_>,
) -> Result<(), BuildError> {
    loop {
        match contents.skip_some(buffer).map_err(|error| archive.refuse(error.into()))? {
            0 => return Ok(()),
            count => watch.step(0, count as u64)?,
        }
    }
}

/// Notes where the files of an archive are.
fn own_places(places: &mut [Option<Place>], known: &Known, index: usize) {
    for id in known.members.iter().filter_map(|(id, _)| *id) {
        places[id.index()] = Some((index, id));
    }
}

/// A layer that was read, and is not yet an image.
struct Ready {
    index: usize,
    origin: LayerOrigin,
    tree: Tree,
    places: Vec<Option<Place>>,
}

/// The images of an image's layers, lowest first, `images_max` at most: more layers than that become one image, the
/// uppermost. Layers that change nothing are left out, and what an opaque root hides.
pub(super) fn stack(
    image: &str,
    blobs: Vec<Blob>,
    images_max: usize,
    watch: &mut Watch<'_>,
) -> Result<Vec<Layer>, BuildError> {
    let mut below = Stacked::new(false);
    let (mut archives, mut layers) = (Vec::new(), Vec::<Ready>::new());
    // An image of nothing but empty layers is the lowest of them.
    let mut starts_empty = false;
    for (index, Blob { archive, origin }) in blobs.into_iter().enumerate() {
        let mut growing = Growing::new(&archive, true, &below);
        let (members, _) = members(&archive, &mut growing, watch)?;
        let grown = growing.finish();
        let known = Known { archive, members };
        let mut places = vec![None; grown.tree.len()];
        own_places(&mut places, &known, index);
        for (from, copy) in &grown.copies {
            places[copy.index()] = below.place(*from);
        }
        archives.push(known);
        if grown.is_opaque {
            layers.clear();
            below = Stacked::new(false);
        }
        if grown.is_nothing && !layers.is_empty() {
            continue;
        }
        below.put(&grown.tree, &places)?;
        starts_empty = if layers.is_empty() { grown.is_nothing } else { starts_empty };
        layers.push(Ready { index, origin, tree: grown.tree, places });
    }
    if starts_empty && layers.len() > 1 {
        layers.remove(0);
    }
    compose(image, layers, images_max, Rc::new(archives))
}

/// One source for each layer, or for the upper ones together.
fn compose(
    image: &str,
    mut layers: Vec<Ready>,
    images_max: usize,
    archives: Rc<Vec<Known>>,
) -> Result<Vec<Layer>, BuildError> {
    let own = if layers.len() > images_max { images_max.saturating_sub(1) } else { layers.len() };
    let upper = layers.split_off(own);
    let source = |tree, places, origin| {
        let origin = Origin { name: image.into(), layer: Some(origin) };
        Layer { origin, tree, places, archives: Rc::clone(&archives) }
    };
    let mut sources: Vec<Layer> =
        layers.into_iter().map(|layer| source(layer.tree, layer.places, layer.origin)).collect();
    let last = upper.last().map(|layer| layer.index);
    let first = upper.first().map(|layer| layer.origin.clone());
    if let Some(first) = first {
        let mut stacked = Stacked::new(!sources.is_empty());
        for layer in upper {
            stacked.put(&layer.tree, &layer.places)?;
        }
        let (tree, places) = stacked.into_parts();
        sources.push(source(tree, places, LayerOrigin { last, ..first }));
    }
    Ok(sources)
}

impl Layer {
    /// The files of each archive and their inodes here. A file of the archive that is several files here, since a layer
    /// linked one of its names, takes several readings.
    fn wanted(&self, traversal: &Traversal<'_>) -> BTreeMap<(usize, usize), HashMap<InodeId, InodeId>> {
        let mut wanted: BTreeMap<(usize, usize), HashMap<InodeId, InodeId>> = BTreeMap::new();
        for id in &traversal.inodes {
            let Some((archive, from)) = self.places[id.index()] else { continue };
            let mut reading = 0;
            while wanted.get(&(archive, reading)).is_some_and(|files| files.contains_key(&from)) {
                reading += 1;
            }
            wanted.entry((archive, reading)).or_default().insert(from, *id);
        }
        wanted
    }
}

impl Source for Layer {
    fn origin(&self) -> Origin {
        self.origin.clone()
    }

    fn tree(&mut self, _: &mut Watch<'_>) -> Result<Tree, BuildError> {
        Ok(std::mem::take(&mut self.tree))
    }

    fn contents(
        &mut self,
        _: &Tree,
        traversal: &Traversal<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), BuildError> {
        for ((index, _), wanted) in self.wanted(traversal) {
            self.archives[index].contents(&wanted, sink)?;
        }
        Ok(())
    }
}

impl Known {
    fn changed(&self) -> BuildError {
        let what = "it has other members than before".into();
        BuildError::Changed { path: self.archive.name.clone(), what }
    }

    fn contents(&self, wanted: &HashMap<InodeId, InodeId>, sink: &mut Sink<'_>) -> Result<(), BuildError> {
        let mut expected = self.members.iter();
        self.archive.each(|member: Member, contents| {
            if !member.is_file() {
                return Ok(());
            }
            let same = expected.next().filter(|(_, bytes)| *bytes == member.bytes);
            let (id, _) = same.ok_or_else(|| self.changed())?;
            // Something that a later member replaced has no place.
            let Some(id) = id.and_then(|id| wanted.get(&id)) else { return Ok(()) };
            sink(*id, contents as &mut dyn Read).map_err(|error| match error {
                BuildError::Read { path, source } if source.kind() == io::ErrorKind::UnexpectedEof => {
                    self.archive.refuse(TarError::Truncated { within: path })
                }
                BuildError::Read { source, .. } => self.archive.refuse(source.into()),
                other => other,
            })
        })?;
        if expected.next().is_some() { Err(self.changed()) } else { Ok(()) }
    }
}
