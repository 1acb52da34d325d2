//! Opening an image: what it must be before a guest may have it.

use super::uffd::UffdError;
use crate::files::{self, Kind};
use protocol::bytes::BLOCK_BYTES;
use protocol::image::{Backing, Digest, IMAGES_MAX};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Why a guest cannot have its images.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file cannot be opened.
    #[error("Cannot use {name} as image")]
    Open {
        /// The image as it was named.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A length that cannot be mapped as it is: the last part of a huge page would lie behind the end.
    #[error(
        "The image {name} is {bytes} bytes long, but must be a multiple of {BLOCK_BYTES} bytes, and not empty"
    )]
    Length {
        /// The image as it was named.
        name: String,
        /// Its length.
        bytes: u64,
    },
    /// Not as long as the balancer says.
    #[error("The image {name} is {bytes} bytes long, but the balancer says {expected}")]
    Differs {
        /// The image as it was named.
        name: String,
        /// Its length.
        bytes: u64,
        /// The balancer's word.
        expected: u64,
    },
    /// The same file under two names.
    #[error("The image {name} is {other}: it can be mapped once")]
    Twice {
        /// The second name.
        name: String,
        /// The first name.
        other: String,
    },
    /// More than fit.
    #[error("{found} images, but a guest can have at most {IMAGES_MAX}")]
    TooMany {
        /// How many there are.
        found: usize,
    },
    /// The system refused the mapping.
    #[error("Cannot map the image {name}")]
    Map {
        /// The image as it was named.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Faults of an image that the balancer fills cannot be watched.
    #[error(
        "Images with a managed backing cannot be mapped (balancer serve --pool pagecache needs no rights)"
    )]
    Watch(#[from] UffdError),
    /// It does not fit next to the rest of guest memory.
    #[error("Cannot place the image {name} in guest memory")]
    Describe {
        /// The image as it was named.
        name: String,
    },
}

/// An image that is open for reading.
#[derive(Debug)]
pub struct OpenImage {
    /// As the user named it.
    pub name: String,
    /// Its name in the pool, if it is the pool's.
    pub digest: Option<Digest>,
    /// Its length, bytes.
    pub bytes: u64,
    /// The one descriptor of it.
    pub file: File,
    /// How the host holds its pages.
    pub backing: Backing,
    /// Device and inode.
    inode: (u64, u64),
    /// Says in the balancer's store that the image is in use, where `file` does not.
    _mark: Option<File>,
}

impl OpenImage {
    /// An image behind a descriptor.
    ///
    /// # Errors
    /// When it has no length that a guest could map.
    pub fn new(name: String, digest: Option<Digest>, file: File) -> Result<Self, ImageError> {
        let metadata = match file.metadata() {
            Ok(metadata) => metadata,
            Err(source) => return Err(ImageError::Open { name, source }),
        };
        let (bytes, inode) = (metadata.len(), (metadata.dev(), metadata.ino()));
        if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(ImageError::Length { name, bytes });
        }
        Ok(Self { name, digest, bytes, file, backing: Backing::Pagecache, inode, _mark: None })
    }

    /// The same, of an image that the balancer fills; `mark` is kept open.
    #[must_use]
    pub fn managed(self, mark: Option<File>) -> Self {
        Self { backing: Backing::Managed, _mark: mark, ..self }
    }

    /// Device and inode.
    #[must_use]
    pub fn inode(&self) -> (u64, u64) {
        self.inode
    }

    /// True if two images are one file.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}

/// Opens an image by its path. It is a file of the guest's own: what the pool has is opened by the balancer.
///
/// # Errors
/// When it is not a regular file that can be read, or has a length that cannot be mapped.
pub fn open_path(path: &Path) -> Result<OpenImage, ImageError> {
    let name = path.display().to_string();
    let file = files::open(path, false, Kind::Regular)
        .map_err(|source| ImageError::Open { name: name.clone(), source })?;
    OpenImage::new(name, None, file)
}
