//! Files that the spec names: disks and the socket of the channel. Images are in `root_images`.

use super::disk_format;
use crate::disk_cache::DiskFile;
use crate::events::channel::Listening;
use crate::files;
use crate::link;
use crate::memory::images::ImageError;
use crate::spec::Disk;
use devices::virtio::block::{Block, SECTOR_BYTES};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Why a file or an image that the spec names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A file behind a device.
    #[error("Cannot use {} as {what}", path.display())]
    File {
        /// `disk`, `console` or `channel`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another guest has the disk.
    #[error("The disk {} is in use by another process; only read-only disks (PATH,ro) can be shared", path.display())]
    DiskInUse {
        /// The file.
        path: PathBuf,
    },
    /// A disk is not raw.
    #[error(
        "The disk {} begins like a {name} image, and a guest would see that file's own bytes: make it raw with \
         `qemu-img convert -f {qemu} -O raw`, or say that it is raw (PATH,raw)",
        path.display()
    )]
    NotRaw {
        /// The file.
        path: PathBuf,
        /// Its format.
        name: &'static str,
        /// What `qemu-img` calls that.
        qemu: &'static str,
    },
    /// An image cannot be mapped.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image is in a store, but there is no balancer to ask for it.
    #[error(
        "The image {name} is in the balancer's store, but there is no balancer (--balancer none); name a path instead"
    )]
    NoStore {
        /// The image.
        name: String,
    },
    /// No balancer can be started.
    #[error("No balancer")]
    NoBalancer(#[from] link::StartError),
    /// The balancer does not answer.
    #[error("Cannot ask the balancer for images")]
    AskImages(#[source] io::Error),
    /// The balancer refused the images.
    #[error("{0}")]
    ImagesRefused(String),
}

/// Opens a disk and locks its file.
pub(super) fn open_disk(disk: &Disk) -> Result<(Block, DiskFile), InputError> {
    let refused = |source| InputError::File { what: "disk", path: disk.path.clone(), source };
    let file = files::open(&disk.path, !disk.read_only, files::Kind::Disk).map_err(refused)?;
    if !disk.is_raw
        && let Some((name, qemu)) = disk_format::of(&file).map_err(refused)?
    {
        return Err(InputError::NotRaw { path: disk.path.clone(), name, qemu });
    }
    lock(&file, disk.read_only).map_err(|error| match error {
        TryLockError::WouldBlock => InputError::DiskInUse { path: disk.path.clone() },
        TryLockError::Error(error) => refused(error),
    })?;
    let id = disk.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let same = file.try_clone().map_err(refused)?;
    let device = Block::new(file, disk.read_only, &id).map_err(refused)?;
    let bytes = device.sectors() * SECTOR_BYTES;
    let cached = DiskFile::open(&same, bytes, device.moved_bytes()).map_err(refused)?;
    Ok((device, cached))
}

/// Listens at the socket of the channel, if the spec names one.
pub(super) fn open_channel(path: Option<&Path>) -> Result<Option<Listening>, InputError> {
    let listen = |path: &Path| {
        Listening::new(path).map_err(|source| InputError::File { what: "channel", path: path.into(), source })
    };
    path.map(listen).transpose()
}

/// One writer or many readers, for as long as the descriptor is open.
fn lock(file: &File, shared: bool) -> Result<(), TryLockError> {
    if shared { file.try_lock_shared() } else { file.try_lock() }
}
