//! What clients see of the pool.

use protocol::domain::Domain;
use protocol::image::{Backing, Digest};
use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The pool: what it holds, what that costs whom, and what is saved.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PoolObject {
    /// The pool's own container: it pays for what no guest maps, and for what the accounting system charges to the pool.
    #[schema(value_type = String)]
    pub container: ContainerPath,
    /// Its `max`, bytes.
    pub max_bytes: Option<u64>,
    /// What the host holds of all images, bytes.
    pub resident_bytes: u64,
    /// The part of that which guests map, bytes; once, however many do.
    pub mapped_bytes: u64,
    /// What it would cost if each guest had its own copy of what it maps, bytes.
    pub alone_bytes: u64,
    /// What is charged to all containers, bytes: what is resident, but for `rss`.
    pub charged_bytes: u64,
    /// What sharing saves: `alone_bytes` less `mapped_bytes`.
    pub saved_bytes: u64,
    /// What would be saved on top if equal images of different trust domains were shared, bytes.
    pub would_have_saved_bytes: u64,
    /// By how much guests may map more than their tables tell, bytes.
    pub error_bytes: u64,
    /// Age of the oldest look at what is resident, milliseconds; `null` without images.
    pub age_ms: Option<u64>,
    /// Frames that were charged to nobody or twice at any sample. Must stay 0.
    pub uncharged_frames: u64,
    /// Images in use.
    pub images: Vec<PoolImageObject>,
    /// Containers that pay, or whose guests map images.
    pub containers: Vec<PoolPayerObject>,
    /// Guests that map images.
    pub guests: Vec<PoolGuestObject>,
    /// Containers whose `max` cannot be kept because guests map what they pay for.
    pub shortfalls: Vec<PoolShortfall>,
}

/// An image in one trust domain.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PoolImageObject {
    /// Its name.
    pub digest: Digest,
    /// The trust domain.
    #[schema(value_type = String)]
    pub domain: Domain,
    /// What it was built from.
    pub origin: String,
    /// Its length, bytes.
    pub bytes: u64,
    /// What holds its pages.
    pub backing: Backing,
    /// What the host holds of it, bytes.
    pub resident_bytes: u64,
    /// The part of that which guests map, bytes.
    pub mapped_bytes: u64,
    /// What it would cost if each guest had its own copy of what it maps, bytes.
    pub alone_bytes: u64,
    /// What sharing saves: `alone_bytes` less `mapped_bytes`.
    pub saved_bytes: u64,
    /// By how much guests may map more than their tables tell, bytes.
    pub error_bytes: u64,
    /// Age of the look at what is resident, milliseconds.
    pub age_ms: Option<u64>,
    /// The container that pays for all of it, if it is bound.
    #[schema(value_type = Option<String>)]
    pub bound_to: Option<ContainerPath>,
    /// What was found to be wrong with its file since it was verified.
    pub changed: Option<String>,
    /// What keeping its books takes, bytes.
    pub books_bytes: u64,
    /// Guests that map it, in the order in which they registered.
    pub sharers: Vec<SharerObject>,
}

/// A guest that maps an image.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SharerObject {
    /// The guest.
    pub guest: String,
    /// What it maps of the image, bytes.
    pub mapped_bytes: u64,
    /// Age of the look at its table, milliseconds.
    pub age_ms: Option<u64>,
}

/// A container and the pool.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PoolPayerObject {
    /// The container; those inside it have objects of their own.
    #[schema(value_type = String)]
    pub container: ContainerPath,
    /// What its guests would cost if each had its own copy of what it maps, bytes.
    pub alone_bytes: u64,
    /// What it pays for pages of the pool, bytes.
    pub charged_bytes: u64,
    /// `alone_bytes` less `charged_bytes`, at least 0.
    pub saved_bytes: u64,
}

/// A guest and the pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolGuestObject {
    /// The guest.
    pub guest: String,
    /// What its own copy of all that it maps would cost, bytes.
    pub alone_bytes: u64,
    /// What it would pay if it were a container of its own, bytes; nothing for images that are bound.
    pub charged_bytes: u64,
    /// `alone_bytes` less `charged_bytes`, at least 0.
    pub saved_bytes: u64,
}

/// A container's `max` that cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PoolShortfall {
    /// The container.
    #[schema(value_type = String)]
    pub container: ContainerPath,
    /// Its `max`, bytes.
    pub max_bytes: u64,
    /// What it pays for and guests map, bytes: this cannot be let go.
    pub mapped_bytes: u64,
    /// What no guest maps and the kernel keeps all the same, bytes: pages of a large folio another page of which is mapped.
    pub kept_bytes: u64,
    /// What is missing, bytes.
    pub missing_bytes: u64,
}

/// A binding: who pays for an image as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BindingObject {
    /// A host path, for images built from it or from below it, or the digest of an image.
    pub subject: String,
    /// The container that pays.
    #[schema(value_type = String)]
    pub container: ContainerPath,
    /// Images in use that it decides about.
    pub images: Vec<Digest>,
    /// What the host holds of those, bytes: what the container is charged by this.
    pub resident_bytes: u64,
}
