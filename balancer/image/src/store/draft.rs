//! Files that are not finished, and how they become images.

use super::error::failed;
use super::{Manifest, Store, StoreError};
use crate::check;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::NamedTempFile;

const PREFIX: &str = ".draft-";

/// A file of the store that has no name yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Draft(NamedTempFile);

impl Draft {
    /// The file, to be written.
    #[must_use]
    pub fn file(&self) -> &File {
        self.0.as_file()
    }

    /// Locked, so that no process takes it for a draft of a killed process. The caller holds the lock of the names, so
    /// that no process sees it unlocked.
    pub(super) fn new(folder: &Path) -> Result<Self, StoreError> {
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempfile_in(folder)
            .map_err(failed("write to", folder))?;
        file.as_file().lock().map_err(failed("lock", file.path()))?;
        Ok(Self(file))
    }

    /// Gives it its name, for good. It is on the disk when this returns.
    pub(super) fn publish(self, path: &Path, mode: u32) -> Result<(), StoreError> {
        let io = |doing| failed(doing, path);
        self.file().set_permissions(Permissions::from_mode(mode)).map_err(io("set the mode of"))?;
        self.file().sync_all().map_err(io("write"))?;
        self.0.persist(path).map_err(|error| io("rename to")(error.error))?;
        if let Some(folder) = path.parent() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("write to", folder))?;
        }
        Ok(())
    }
}

impl Store {
    /// An empty file for a new image. Removes drafts of killed builds, and copies that no guest and no balancer needs.
    ///
    /// # Errors
    /// When the store cannot be written to.
    pub fn draft(&self) -> Result<Draft, StoreError> {
        let _names = self.lock_names(true)?;
        self.remove_stale()?;
        self.sweep_locked()?;
        Draft::new(&self.images())
    }

    /// Makes a draft an image. If there is one of that digest already, and it is whole, that one stays, with its
    /// origin; a damaged one is replaced, and processes that have it open keep the old content.
    ///
    /// # Errors
    /// When the store cannot be written to.
    pub fn adopt(&self, draft: Draft, manifest: Manifest) -> Result<Manifest, StoreError> {
        let _names = self.lock_names(true)?;
        let path = self.image_path(&manifest.digest);
        if let (Ok(file), Ok(before)) = (File::open(&path), self.manifest(&manifest.digest))
            && check::digest(&file).is_ok_and(|digest| digest == manifest.digest)
        {
            return Ok(before);
        }
        // The manifest first: an image with a name has one, after whatever crash.
        let description = Draft::new(&self.images())?;
        let text =
            serde_json::to_vec_pretty(&manifest).map_err(|error| failed("describe", &path)(error.into()))?;
        let described = self.manifest_path(&manifest.digest);
        description.file().write_all(&text).map_err(failed("write", &described))?;
        description.publish(&described, 0o444)?;
        draft.publish(&path, 0o444)?;
        Ok(manifest)
    }

    /// Removes drafts that no process holds, and manifests without their images. The caller holds the lock of the
    /// names.
    fn remove_stale(&self) -> Result<(), StoreError> {
        let mut folders = vec![self.images()];
        folders.extend(self.domain_folders()?);
        for folder in folders {
            for entry in fs::read_dir(&folder).map_err(failed("read", &folder))? {
                let entry = entry.map_err(failed("read", &folder))?;
                let (path, name) = (entry.path(), entry.file_name());
                let stale_draft = name.to_string_lossy().starts_with(PREFIX)
                    && File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
                let orphan = path.extension().is_some_and(|end| end == "json")
                    && !path.with_extension("erofs").exists();
                if stale_draft || orphan {
                    // What is not a file, or cannot be removed, is in the way of no image.
                    let _ = fs::remove_file(&path);
                }
            }
        }
        Ok(())
    }
}
