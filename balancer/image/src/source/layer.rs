//! A tar as a source: on its own, or a layer of an OCI image.

use super::archive::Archive;
use super::decompress::Compression;
use super::grow::Growing;
use super::tar::{Member, TarError};
use super::{LayerOrigin, Origin, Sink, Source};
use crate::IMAGE_BYTES_MAX;
use crate::error::BuildError;
use crate::tree::{InodeId, Traversal, Tree, TreeError};
use crate::watch::Watch;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use tar::EntryType;

/// A tar.
pub struct Layer {
    origin: Origin,
    archive: Archive,
    /// Whiteouts are such.
    overlay: bool,
    /// The inode of each member with contents, in the archive's order, and its length.
    members: Vec<(Option<InodeId>, u64)>,
}

impl Layer {
    /// A tar on its own.
    pub(super) fn of_tar(path: &Path) -> Result<Self, BuildError> {
        let name = path.display().to_string();
        let read = |source| BuildError::Read { path: name.clone(), source };
        let file = File::open(path).map_err(read)?;
        let mut begin = Vec::new();
        (&file).take(8).read_to_end(&mut begin).map_err(read)?;
        let refuse = |what| BuildError::Tar { archive: name.clone(), what };
        let compression = Compression::of(&begin).ok_or(TarError::Compression).map_err(refuse)?;
        let origin = Origin { name: name.clone(), layer: None };
        let archive = Archive { name, file, compression, digest: None };
        Ok(Self { origin, archive, overlay: false, members: Vec::new() })
    }

    /// A layer of an OCI image, whose file has this digest.
    pub(super) fn of_blob(
        file: File,
        compression: Compression,
        hex: &str,
        image: &str,
        layer: LayerOrigin,
    ) -> Self {
        let name = format!("Layer {} ({})", layer.index, layer.digest);
        let archive = Archive { name, file, compression, digest: Some(hex.into()) };
        let origin = Origin { name: image.into(), layer: Some(layer) };
        Self { origin, archive, overlay: true, members: Vec::new() }
    }
}

impl Source for Layer {
    fn origin(&self) -> Origin {
        self.origin.clone()
    }

    fn tree(&mut self, watch: &mut Watch<'_>) -> Result<Tree, BuildError> {
        let mut growing = Growing::new(&self.archive, self.overlay);
        let (mut total, mut members) = (0_u64, Vec::new());
        let mut buffer = vec![0; 1 << 20];
        self.archive.each(|member, contents| {
            let content = has_contents(&member).then_some(member.bytes);
            total = total.saturating_add(content.unwrap_or(0));
            if total > IMAGE_BYTES_MAX {
                return Err(TreeError::TooLarge.into());
            }
            let id = growing.add(member)?;
            members.extend(content.map(|bytes| (id, bytes)));
            watch.step(1, 0)?;
            loop {
                match contents.read(&mut buffer).map_err(|error| self.archive.refuse(error.into()))? {
                    0 => return Ok(()),
                    count => watch.step(0, count as u64)?,
                }
            }
        })?;
        let tree = growing.finish()?;
        self.members = members;
        Ok(tree)
    }

    fn contents(
        &mut self,
        _: &Tree,
        traversal: &Traversal<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), BuildError> {
        let mut expected = self.members.iter();
        let changed = || {
            let what = "it has other members than before".into();
            BuildError::Changed { path: self.archive.name.clone(), what }
        };
        self.archive.each(|member, contents| {
            if !has_contents(&member) {
                return Ok(());
            }
            let same = expected.next().filter(|(_, bytes)| *bytes == member.bytes);
            let (id, _) = same.ok_or_else(changed)?;
            // A whiteout, or something that a later member replaced, has no place.
            let Some(id) = id.filter(|id| traversal.links(*id) > 0) else { return Ok(()) };
            sink(id, contents).map_err(|error| match error {
                BuildError::Read { path, source } if source.kind() == io::ErrorKind::UnexpectedEof => {
                    self.archive.refuse(TarError::Truncated { within: path })
                }
                BuildError::Read { source, .. } => self.archive.refuse(source.into()),
                other => other,
            })
        })?;
        if expected.next().is_some() { Err(changed()) } else { Ok(()) }
    }
}

fn has_contents(member: &Member) -> bool {
    matches!(member.kind, EntryType::Regular | EntryType::Continuous)
}
