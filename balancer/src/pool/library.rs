//! May a guest have this image? Once per balancer and file, the image is checked against its digest, and every file in
//! it must be usable with DAX. A file that changed since is checked again.

use super::backing::{PoolBacking, Stamp};
use super::image::Key;
use super::managed::Managed;
use super::pagecache::Pagecache;
use image::check::{self, CheckError};
use image::store::{Store, StoreError};
use protocol::domain::Domain;
use protocol::image::{Backing, Digest, IMAGES_MAX};
use protocol::sync::MutexExt;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Files that are remembered as verified. One that is forgotten is verified again.
const VERIFIED_MAX: usize = 4096;

/// The store, and its files that are verified. Every call reads from the disk.
#[derive(Debug)]
pub struct Library {
    folder: PathBuf,
    /// The kind of backing of images that are opened.
    backing: Backing,
    verified: Mutex<BTreeMap<Stamp, Digest>>,
    /// Domains whose copies stay although no guest maps them.
    kept: Mutex<Kept>,
    /// Verifying is reading and hashing. One file at a time, so that many requests for one image wait for one reading.
    verifying: Mutex<()>,
}

/// Locks on the folders of domains.
#[derive(Debug, Default)]
struct Kept {
    locks: BTreeMap<Domain, Arc<File>>,
    /// The domains that were needed at the last look.
    needed: Option<BTreeSet<Domain>>,
}

/// An image that may be mapped.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The image and its domain.
    pub key: Key,
    /// Where it was built from.
    pub origin: String,
    /// What holds its pages.
    pub backing: Arc<dyn PoolBacking>,
    /// Its file, to be verified.
    file: Arc<Pagecache>,
    /// Keeps the file in the store until the pool knows it.
    _kept: Option<Arc<File>>,
}

/// Why a guest does not get an image.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The store does not have it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its content does not have its digest, or no guest should map it.
    #[error("Image {digest} cannot be mapped by guests of domain {domain}")]
    Check {
        /// The image.
        digest: Digest,
        /// The domain.
        domain: Domain,
        /// What is wrong.
        source: Box<CheckError>,
    },
    /// The system refused.
    #[error("Image {digest} cannot be opened")]
    Io {
        /// The image.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// A bug of ours.
    #[error("The images could not be opened: {0}")]
    Panicked(String),
    /// Too many images for one guest.
    #[error("{0} images are asked for, but a guest can map at most {IMAGES_MAX}")]
    TooMany(usize),
    /// One image asked for twice.
    #[error("Image {0} is asked for twice, but a guest maps each image once")]
    Twice(Digest),
}

impl LibraryError {
    /// True if an image is damaged, which the operator of the host should know.
    #[must_use]
    pub fn is_change(&self) -> bool {
        match self {
            Self::Check { source, .. } => matches!(**source, CheckError::Digest { .. }),
            Self::Store(error) => matches!(error, StoreError::Damaged { .. }),
            _ => false,
        }
    }
}

impl Library {
    /// The store in this folder, which is made when it is first needed.
    #[must_use]
    pub fn new(folder: &Path, backing: Backing) -> Self {
        Self {
            folder: folder.into(),
            backing,
            verified: Mutex::default(),
            kept: Mutex::default(),
            verifying: Mutex::default(),
        }
    }

    /// The store.
    ///
    /// # Errors
    /// When it cannot be made, or others could change it.
    pub fn store(&self) -> Result<Store, StoreError> {
        Store::open(&self.folder)
    }

    /// Opens images by digest, its first digits or their path, for guests of a domain, and verifies them.
    ///
    /// # Errors
    /// The first image that a guest may not have.
    pub fn open_all(&self, names: &[String], domain: &Domain) -> Result<Vec<Opened>, LibraryError> {
        if names.len() > IMAGES_MAX {
            return Err(LibraryError::TooMany(names.len()));
        }
        let store = self.store()?;
        let mut opened: Vec<Opened> = Vec::with_capacity(names.len());
        for name in names {
            let digest = store.resolve(name)?;
            if opened.iter().any(|other| other.key.digest == digest) {
                return Err(LibraryError::Twice(digest));
            }
            let image = self.open(&Key { digest, domain: domain.clone() })?;
            self.verify(&image)?;
            opened.push(image);
        }
        Ok(opened)
    }

    /// Opens an image without verifying it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(&self, key: &Key) -> Result<Opened, LibraryError> {
        let store = self.store()?;
        let origin = store.manifest(&key.digest)?.origin;
        let file = store.file_for_domain(&key.digest, key.domain.as_str())?.file;
        let kept = self.keep(&store, &key.domain)?;
        let io = |source| LibraryError::Io { digest: key.digest, source };
        // The store's descriptor has a lock that says that the image is in use. Only guests may say so: the pool
        // samples the image as long as it has resident pages.
        let pagecache =
            Pagecache::new(file).and_then(|locked| Pagecache::new(locked.open_unlocked()?)).map_err(io)?;
        let file = Arc::new(pagecache);
        let backing: Arc<dyn PoolBacking> = match self.backing {
            Backing::Pagecache => Arc::clone(&file) as _,
            // The balancer reads the file as long as the memory lives, and the file is locked as in use until then.
            Backing::Managed => Arc::new(Managed::new(Arc::clone(&file)).map_err(io)?),
        };
        Ok(Opened { key: key.clone(), origin, backing, file, _kept: kept })
    }

    /// Checks an image against its digest, unless that was done and the file did not change since.
    ///
    /// # Errors
    /// When it has another digest, or no guest should map it.
    pub fn verify(&self, image: &Opened) -> Result<(), LibraryError> {
        let Key { digest, domain } = image.key.clone();
        let io = |source| LibraryError::Io { digest, source };
        let wrong = |error: CheckError| LibraryError::Check {
            digest,
            domain: domain.clone(),
            source: Box::new(error),
        };
        let _one = self.verifying.acquire();
        let stamp = image.file.stamp().map_err(io)?;
        if self.verified().get(&stamp) == Some(&digest) {
            return Ok(());
        }
        let before = image.file.resident().map_err(io)?;
        let file = image.file.open_for_guest().map_err(io)?;
        check::check(&file).map_err(wrong)?;
        let found = check::digest(&file).map_err(io)?;
        // Pages that only this reading brought in are evicted again.
        for run in image.file.resident().map_err(io)?.minus(&before).runs() {
            image.file.evict(run).map_err(io)?;
        }
        if found != digest {
            return Err(wrong(CheckError::Digest { expected: digest, found }));
        }
        let mut verified = self.verified();
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        // A file that changed while it was read has another stamp by now, and is read again next time.
        verified.insert(stamp, digest);
        Ok(())
    }

    /// Images in the store whose origin satisfies a condition.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn origins(&self) -> Result<Vec<(Digest, String)>, StoreError> {
        let images = self.store()?.list()?.images.into_iter().map(|image| image.manifest);
        Ok(images.map(|manifest| (manifest.digest, manifest.origin)).collect())
    }

    fn keep(&self, store: &Store, domain: &Domain) -> Result<Option<Arc<File>>, StoreError> {
        let locks = &mut self.kept.acquire().locks;
        if let Some(lock) = locks.get(domain) {
            return Ok(Some(Arc::clone(lock)));
        }
        let lock = store.keep_domain(domain.as_str())?.map(Arc::new);
        if let Some(lock) = &lock {
            locks.insert(domain.clone(), Arc::clone(lock));
        }
        Ok(lock)
    }

    /// Keeps the copies of these domains, and removes those of others that no process has open. Does nothing while the
    /// same domains are needed.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn keep_domains(&self, needed: BTreeSet<Domain>) -> Result<(), StoreError> {
        if self.kept.acquire().needed.as_ref() == Some(&needed) || !self.folder.exists() {
            return Ok(());
        }
        let store = self.store()?;
        for domain in &needed {
            self.keep(&store, domain)?;
        }
        {
            let mut kept = self.kept.acquire();
            kept.locks.retain(|domain, _| needed.contains(domain));
            kept.needed = Some(needed);
        }
        store.sweep()
    }

    fn verified(&self) -> std::sync::MutexGuard<'_, BTreeMap<Stamp, Digest>> {
        self.verified.acquire()
    }
}
