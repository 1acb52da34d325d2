//! The folder with images.
//!
//! ```text
//!   STORE/lock                            held while names change, for moments
//!   STORE/images/<hex>.erofs, <hex>.json  an image, mode 0444, and its manifest
//!   STORE/images/.draft-*                 being built; its builder holds a lock on it
//!   STORE/domains/<domain>/<hex>.erofs    the same bytes as another inode: the file that guests of one trust domain
//!   share
//! ```
//!
//! * A file is complete when it has its name: written under another one, synced, renamed; and it is never written
//!   again. A killed process leaves a draft without a lock, which the next build removes.
//! * A copy for a domain goes when no process has it open and no balancer keeps the domain by a shared lock on its
//!   folder. A balancer removes it then, and so does the next build.
//! * A process that opened an image holds a shared lock on it (`flock`), which lives as long as any descriptor of that
//!   opening, in whatever process, or a mapping: so an image in use cannot be removed, and no list of users can be
//!   wrong.

mod domain;
mod draft;
mod error;
mod manifest;
mod resolve;

pub use domain::Opened;
pub use draft::Draft;
pub use error::StoreError;
pub use manifest::{Listed, Listing, Manifest};

use error::failed;
use protocol::image::Digest;
use protocol::private;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Environment variable that names the store.
pub const STORE_VARIABLE: &str = "BALLAST_STORE";

/// A store.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The folder that was named, or the user's own: `/var/lib/ballast` for root, unless it is root of a user namespace
    /// that does not own `/var/lib`; else `$XDG_DATA_HOME/ballast`, else `~/.local/share/ballast`.
    #[must_use]
    pub fn default_folder() -> PathBuf {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(named) = variable(STORE_VARIABLE) {
            return named;
        }
        if rustix::process::geteuid().is_root() && private::owns(Path::new("/var/lib")) {
            return "/var/lib/ballast".into();
        }
        let data =
            variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        data.map_or_else(
            || format!("/tmp/ballast-store-{}", private::user_outside()).into(),
            |data| data.join("ballast"),
        )
    }

    /// Opens a store, and makes it if there is none: mode 0700, since images hold whatever the folders held that they
    /// were made from.
    ///
    /// # Errors
    /// When others may write into it: they could put another file where an image was verified.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for part in [folder.to_owned(), folder.join("images"), folder.join("domains")] {
            builder.create(&part).map_err(failed("make", &part))?;
            let metadata = fs::metadata(&part).map_err(failed("look at", &part))?;
            let (mode, uid) = (metadata.mode() & 0o7777, metadata.uid());
            if mode & 0o022 != 0 || (uid != rustix::process::geteuid().as_raw() && uid != 0) {
                return Err(StoreError::Foreign { folder: part, uid, mode });
            }
        }
        let folder = fs::canonicalize(folder).map_err(failed("look at", folder))?;
        Ok(Self { folder })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn images(&self) -> PathBuf {
        self.folder.join("images")
    }

    /// The file of an image that was built; guests get that of their domain.
    #[must_use]
    pub fn image_path(&self, digest: &Digest) -> PathBuf {
        self.images().join(format!("{}.erofs", digest.hex()))
    }

    fn manifest_path(&self, digest: &Digest) -> PathBuf {
        self.images().join(format!("{}.json", digest.hex()))
    }

    /// Opens the file of an image that was built, not to be changed, and marks it as used while it is open.
    ///
    /// # Errors
    /// When there is none.
    pub fn open_image(&self, digest: &Digest) -> Result<File, StoreError> {
        let _names = self.lock_names(false)?;
        let path = self.image_path(digest);
        match File::open(&path) {
            Ok(file) => {
                file.lock_shared().map_err(failed("lock", &path))?;
                Ok(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::Unknown { text: digest.to_string() })
            }
            Err(error) => Err(failed("open", &path)(error)),
        }
    }

    /// Removes an image and its copies in all domains.
    ///
    /// # Errors
    /// When a process has it open, or there is no such image. Then all of it is still there.
    pub fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        let _names = self.lock_names(true)?;
        let manifest = self.manifest_path(digest);
        let mut paths = self.copies(digest)?;
        paths.push(self.image_path(digest));
        let mut held = Vec::new();
        for path in &paths {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(StoreError::Unknown { text: digest.to_string() });
                }
                Err(error) => return Err(failed("open", path)(error)),
            };
            match file.try_lock() {
                Ok(()) => held.push(file),
                Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { digest: *digest }),
                Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
            }
        }
        // The image last: while it is there, what is left of an interrupted removal can be removed again.
        for path in &paths {
            fs::remove_file(path).map_err(failed("remove", path))?;
        }
        match fs::remove_file(&manifest) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &manifest)(error)),
            _ => Ok(()),
        }
    }

    /// Held while names change (exclusively), or while a name is turned into an open and locked file.
    fn lock_names(&self, exclusive: bool) -> Result<File, StoreError> {
        let path = self.folder.join("lock");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed("open", &path))?;
        let locked = if exclusive { file.lock() } else { file.lock_shared() };
        locked.map_err(failed("lock", &path))?;
        Ok(file)
    }
}

#[cfg(test)]
#[path = "../store_test.rs"]
mod tests;
