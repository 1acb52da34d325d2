//! Trust domains: which guests share pages with each other.
//!
//! Two guests that map one inode share its pages, and each can measure by the time of a read which pages the other one
//! reads. So guests of different domains get different inodes with the same bytes. Blocks on the disk are shared where
//! the file system can (reflink): the page cache is per inode all the same.

use super::draft::Draft;
use super::error::failed;
use super::{Store, StoreError};
use crate::{check, sparse};
use protocol::image::Digest;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// An image that is open for the guests of a domain.
#[derive(Debug)]
pub struct Opened {
    /// Open for reading, and locked: the image cannot be removed while this, a descriptor that was made from it, or a
    /// mapping is there.
    pub file: File,
    /// Its length: a multiple of 2 MiB.
    pub bytes: u64,
}

impl Store {
    /// Opens an image for a domain. The first time, the domain gets a file of its own, by reflink or by copying, and
    /// its content is held against the digest; from then on it cannot change.
    ///
    /// # Errors
    /// When there is no such image, when it is damaged, or when there is no room.
    pub fn file_for_domain(&self, digest: &Digest, domain: &str) -> Result<Opened, StoreError> {
        check_domain(domain)?;
        let folder = self.folder.join("domains").join(domain);
        let path = folder.join(format!("{}.erofs", digest.hex()));
        if let Some(opened) = self.open_copy(&path)? {
            return Ok(opened);
        }
        let source = self.open_image(digest)?;
        let draft = {
            let _names = self.lock_names(true)?;
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed("make", &folder))?;
            Draft::new(&folder)?
        };
        if rustix::fs::ioctl_ficlone(draft.file(), &source).is_err() {
            sparse::copy(&source, draft.file()).map_err(failed("write to", &folder))?;
        }
        let found = check::digest(draft.file()).map_err(failed("read", &folder))?;
        if found != *digest {
            return Err(StoreError::Damaged { digest: *digest, found });
        }
        {
            // Another opener may have been faster: then its file is the domain's, and guests may have mapped it.
            let _names = self.lock_names(true)?;
            if !path.exists() {
                draft.publish(&path, 0o444)?;
            }
        }
        let opened = self.open_copy(&path)?.ok_or_else(|| StoreError::Unknown { text: digest.to_string() });
        // Until now, so that no process could remove the image in between.
        drop(source);
        opened
    }

    /// Keeps the copies of a domain as long as the returned file is open. `None` if there are none.
    ///
    /// # Errors
    /// When its folder cannot be locked.
    pub fn keep_domain(&self, domain: &str) -> Result<Option<File>, StoreError> {
        check_domain(domain)?;
        let _names = self.lock_names(false)?;
        let folder = self.folder.join("domains").join(domain);
        let kept = match File::open(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            kept => kept.map_err(failed("open", &folder))?,
        };
        kept.lock_shared().map_err(failed("lock", &folder))?;
        Ok(Some(kept))
    }

    /// Removes copies that no process has open, of domains that no balancer keeps.
    ///
    /// # Errors
    /// When the store cannot be read. A copy that cannot be removed stays.
    pub fn sweep(&self) -> Result<(), StoreError> {
        let _names = self.lock_names(true)?;
        self.sweep_locked()
    }

    /// As [`sweep`](Self::sweep); the caller holds the lock of the names.
    pub(super) fn sweep_locked(&self) -> Result<(), StoreError> {
        let is_free = |path: &Path| File::open(path).is_ok_and(|file| file.try_lock().is_ok());
        for folder in self.domain_folders()? {
            if !is_free(&folder) {
                continue;
            }
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()) {
                if path.extension().is_some_and(|end| end == "erofs") && is_free(&path) {
                    let _ = fs::remove_file(&path);
                }
            }
            // Only if it is empty.
            let _ = fs::remove_dir(&folder);
        }
        Ok(())
    }

    fn open_copy(&self, path: &Path) -> Result<Option<Opened>, StoreError> {
        let _names = self.lock_names(false)?;
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed("open", path))?,
        };
        file.lock_shared().map_err(failed("lock", path))?;
        let bytes = file.metadata().map_err(failed("look at", path))?.len();
        Ok(Some(Opened { file, bytes }))
    }

    /// The files of an image in all domains.
    pub(super) fn copies(&self, digest: &Digest) -> Result<Vec<PathBuf>, StoreError> {
        let name = format!("{}.erofs", digest.hex());
        Ok(self
            .domain_folders()?
            .into_iter()
            .map(|folder| folder.join(&name))
            .filter(|path| path.exists())
            .collect())
    }

    pub(super) fn domain_folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let domains = self.folder.join("domains");
        let mut folders = Vec::new();
        for entry in fs::read_dir(&domains).map_err(failed("read", &domains))? {
            let entry = entry.map_err(failed("read", &domains))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
        Ok(folders)
    }
}

/// A domain's name is the name of a folder.
fn check_domain(name: &str) -> Result<(), StoreError> {
    let good = (1..=255).contains(&name.len()) && !name.starts_with('.') && !name.contains(['/', '\0']);
    if good { Ok(()) } else { Err(StoreError::Domain { name: name.chars().take(100).collect() }) }
}
