//! The shared pool.

use protocol::image::{Backing, Digest};
use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The pool: what it holds, which containers are charged, and what is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolObject {
    /// The pool's own container: it is charged for pages that no guest maps, and for those that the accounting system
    /// charges to the pool.
    pub container: ContainerPath,
    /// Its `max`, bytes.
    pub max_bytes: Option<u64>,
    /// Bytes that the host holds of all images.
    pub resident_bytes: u64,
    /// The part of `resident_bytes` that guests map, bytes; counted once, however many guests map it.
    pub mapped_bytes: u64,
    /// Bytes that the host would hold if each guest had its own copy of the pages that it maps.
    pub alone_bytes: u64,
    /// Bytes that are charged to all containers: equal to `resident_bytes`, except under `rss`.
    pub charged_bytes: u64,
    /// Bytes that sharing saves: `alone_bytes` less `mapped_bytes`.
    pub saved_bytes: u64,
    /// Bytes that would be saved in addition if equal images of different trust domains were shared.
    pub would_have_saved_bytes: u64,
    /// Bytes that guests may map in addition to those in their tables.
    pub error_bytes: u64,
    /// Age of the oldest scan of resident pages, milliseconds; `null` without images.
    pub age_ms: Option<u64>,
    /// Frames that were charged to no container or to two at any sample. Must stay 0.
    pub uncharged_frames: u64,
    /// Images in use.
    pub images: Vec<PoolImageObject>,
    /// Containers that are charged, or whose guests map images.
    pub containers: Vec<PoolPayerObject>,
    /// Guests that map images.
    pub guests: Vec<PoolGuestObject>,
    /// Containers whose `max` cannot be enforced because guests map the pages that they are charged for.
    pub shortfalls: Vec<PoolShortfall>,
}

/// An image in one trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolImageObject {
    /// Its name.
    pub digest: Digest,
    /// The trust domain.
    pub domain: String,
    /// The path that it was built from.
    pub origin: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// What holds its pages.
    pub backing: Backing,
    /// Bytes that the host holds of it.
    pub resident_bytes: u64,
    /// The part of `resident_bytes` that guests map, bytes.
    pub mapped_bytes: u64,
    /// Bytes that the host would hold if each guest had its own copy of the pages that it maps.
    pub alone_bytes: u64,
    /// Bytes that sharing saves: `alone_bytes` less `mapped_bytes`.
    pub saved_bytes: u64,
    /// Bytes that guests may map in addition to those in their tables.
    pub error_bytes: u64,
    /// Age of the scan of its resident pages, milliseconds.
    pub age_ms: Option<u64>,
    /// The container that is charged for all of it; `null` if it is not bound.
    pub bound_to: Option<ContainerPath>,
    /// What was found to be wrong with its file since it was verified; `null` if nothing was.
    pub changed: Option<String>,
    /// Memory of the balancer that counts which guests map its pages, bytes.
    pub books_bytes: u64,
    /// Guests that map it, in the order in which they registered.
    pub sharers: Vec<SharerObject>,
}

/// A guest that maps an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharerObject {
    /// The guest.
    pub guest: String,
    /// Bytes of the image that it maps.
    pub mapped_bytes: u64,
    /// Age of the scan of its table, milliseconds.
    pub age_ms: Option<u64>,
}

/// A container and the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolPayerObject {
    /// The container; those inside it have objects of their own.
    pub container: ContainerPath,
    /// Bytes that its guests would cause if each had its own copy of the pages that it maps.
    pub alone_bytes: u64,
    /// Bytes that it is charged for pages of the pool.
    pub charged_bytes: u64,
    /// `alone_bytes` less `charged_bytes`, at least 0.
    pub saved_bytes: u64,
}

/// A guest and the pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolGuestObject {
    /// The guest.
    pub guest: String,
    /// Bytes that its own copy of all pages that it maps would take.
    pub alone_bytes: u64,
    /// Bytes that it would be charged if it were a container of its own; none for images that are bound.
    pub charged_bytes: u64,
    /// `alone_bytes` less `charged_bytes`, at least 0.
    pub saved_bytes: u64,
}

/// A container's `max` that cannot be enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolShortfall {
    /// The container.
    pub container: ContainerPath,
    /// Its `max`, bytes.
    pub max_bytes: u64,
    /// Bytes that it is charged for and that guests map: these cannot be evicted.
    pub mapped_bytes: u64,
    /// Bytes that no guest maps and that the kernel keeps nevertheless: pages of a large folio of which another page is
    /// mapped.
    pub kept_bytes: u64,
    /// Bytes that are missing.
    pub missing_bytes: u64,
}

/// How fresh the figures of the pool must be.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PoolQuery {
    /// Scan files and frame tables first, unless the last scan is at most this old, milliseconds.
    pub max_age_ms: Option<u64>,
}
