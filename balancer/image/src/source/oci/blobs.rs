//! The files of an image: in a folder, or in a tar.

use super::document::Descriptor;
use super::{Form, OciError, is_digest};
use crate::source::archive::Part;
use crate::tree::{InodeId, Kind, Tree};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest index or manifest: what registries take.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Most symbolic links on the way to a blob in a tar.
const LINKS_MAX: usize = 40;

/// Where the files of an image are.
pub(in crate::source) enum Blobs {
    Folder(PathBuf),
    /// The tar, its names, and where in it the contents are.
    Tar {
        path: PathBuf,
        file: Arc<File>,
        tree: Tree,
        offsets: HashMap<InodeId, (u64, u64)>,
    },
}

impl Blobs {
    /// The folder or tar, for messages.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Folder(path) | Self::Tar { path, .. } => path.clone(),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(name).is_file(),
            Self::Tar { tree, .. } => {
                find(tree, name).is_some_and(|id| matches!(tree.get(id).kind, Kind::Regular(_)))
            }
        }
    }

    pub(super) fn has_folder(&self, name: &str) -> bool {
        match self {
            Self::Folder(path) => path.join(name).is_dir(),
            Self::Tar { tree, .. } => find(tree, name).is_some_and(|id| tree.is_folder(id)),
        }
    }

    /// A file by its name. The name is one of a document, so it must not lead elsewhere.
    pub(super) fn open(&self, name: &str) -> Result<Part, OciError> {
        let refuse = |what: &str| Err(OciError::Document { path: self.path().join(name), what: what.into() });
        if name.is_empty() || name.split('/').any(|part| part == "..") || name.starts_with('/') {
            let what = format!("{name:?} is not the name of a file in it");
            return Err(OciError::Document { path: self.path(), what });
        }
        match self {
            Self::Folder(path) => {
                let path = path.join(name);
                let file = open(&path)?;
                let bytes = file.metadata().map_err(|source| OciError::Read { path, source })?.len();
                Ok(Part { file: Arc::new(file), begin: 0, bytes })
            }
            Self::Tar { path, file, tree, offsets } => {
                let Some(id) = find(tree, name) else {
                    let (path, source) = (path.join(name), io::ErrorKind::NotFound.into());
                    return Err(OciError::Read { path, source });
                };
                match offsets.get(&id) {
                    Some(&(begin, bytes)) => Ok(Part { file: Arc::clone(file), begin, bytes }),
                    None => refuse("it is not a regular file without holes"),
                }
            }
        }
    }

    /// A document by its name.
    pub(super) fn text(&self, name: &str) -> Result<Vec<u8>, OciError> {
        let path = self.path().join(name);
        let mut text = Vec::new();
        self.open(name)?
            .reader()
            .take(DOCUMENT_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(|source| OciError::Read { path, source })?;
        Ok(text)
    }

    pub(super) fn parse<T: DeserializeOwned>(&self, path: &Path, text: &[u8]) -> Result<T, OciError> {
        serde_json::from_slice(text)
            .map_err(|error| OciError::Document { path: path.into(), what: error.to_string() })
    }

    /// The digits of a digest; they become the name of a file, so they are checked.
    pub(super) fn hex<'a>(&self, descriptor: &'a Descriptor) -> Result<&'a str, OciError> {
        let hex = descriptor.digest.strip_prefix("sha256:").filter(|hex| {
            hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
        });
        hex.ok_or_else(|| {
            let what = format!("{:?} is no digest sha256:..", descriptor.digest);
            OciError::Document { path: self.path(), what }
        })
    }

    /// The name of a blob.
    fn name(&self, descriptor: &Descriptor) -> Result<String, OciError> {
        let hex = self.hex(descriptor)?;
        // Next to `manifest.json`: a blob, a manifest of an index, a layer of old versions of `docker-dir`.
        let names = [hex.to_owned(), format!("{hex}.manifest.json"), format!("{hex}.tar")];
        let known = names.into_iter().find(|name| self.has(name));
        Ok(known.unwrap_or_else(|| format!("blobs/sha256/{hex}")))
    }

    pub(super) fn path_of(&self, descriptor: &Descriptor) -> Result<PathBuf, OciError> {
        match descriptor.digest.as_str() {
            "manifest.json" | "index.json" => Ok(self.path().join(&descriptor.digest)),
            _ => Ok(self.path().join(self.name(descriptor)?)),
        }
    }

    /// A blob of the declared length.
    pub(super) fn blob(&self, descriptor: &Descriptor) -> Result<Part, OciError> {
        let name = self.name(descriptor)?;
        let part = self.open(&name)?;
        if part.bytes == descriptor.size {
            return Ok(part);
        }
        let what = format!("it has {} bytes, not {}", part.bytes, descriptor.size);
        Err(OciError::Document { path: self.path().join(name), what })
    }

    /// A document by its digest.
    pub(super) fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, OciError> {
        let path = self.path_of(descriptor)?;
        let refuse = |what: String| Err(OciError::Document { path: path.clone(), what });
        if descriptor.size > DOCUMENT_BYTES_MAX {
            return refuse(format!(
                "it has {} bytes, at most {DOCUMENT_BYTES_MAX} are read",
                descriptor.size
            ));
        }
        let mut text = Vec::new();
        let part = self.blob(descriptor)?;
        let read = part.reader().take(descriptor.size).read_to_end(&mut text);
        read.map_err(|source| OciError::Read { path: path.clone(), source })?;
        if let Err(what) = is_digest(&text, self.hex(descriptor)?) {
            return refuse(what);
        }
        self.parse(&path, &text)
    }

    /// What it holds.
    pub(in crate::source) fn form(&self) -> Result<Option<Form>, OciError> {
        Form::of(self)
    }
}

/// What a path leads to inside a tar; old versions of `docker save` link equal layers.
fn find(tree: &Tree, path: &str) -> Option<InodeId> {
    let mut trail = vec![tree.root()];
    let mut waiting: Vec<Vec<u8>> = path.split('/').rev().map(|name| name.as_bytes().to_vec()).collect();
    let mut links = 0;
    while let Some(name) = waiting.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                trail.truncate((trail.len() - 1).max(1));
                continue;
            }
            _ => {}
        }
        let id = tree.lookup(*trail.last()?, &name)?;
        if let Kind::Symlink(target) = &tree.get(id).kind {
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            if target.starts_with(b"/") {
                trail.truncate(1);
            }
            waiting.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
            continue;
        }
        trail.push(id);
    }
    trail.pop()
}

/// Opens a regular file; a pipe must not make us wait.
pub(in crate::source) fn open(path: &Path) -> Result<File, OciError> {
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
