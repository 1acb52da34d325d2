//! Bindings: which container is charged for an image as a whole.

use protocol::image::Digest;
use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A binding: the container that is charged for an image as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BindingObject {
    /// A host path, for images built from it or from below it, or the digest of an image.
    pub subject: String,
    /// The container that is charged.
    pub container: ContainerPath,
    /// Images in use for which this binding decides.
    pub images: Vec<Digest>,
    /// Bytes that the host holds of those images, and that the container is charged for them.
    pub resident_bytes: u64,
}

/// A binding that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BindingPut {
    /// A host path that exists or that an image was built from, or an image: its digest, or at least 8 of its digits.
    pub subject: String,
    /// The container that is charged; it must exist.
    pub container: ContainerPath,
    /// Bind it even if it is bound to another container.
    #[serde(default)]
    pub replace: bool,
}

/// Which binding.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BindingQuery {
    /// What is bound, as in the list of bindings, or as it may be given to bind it.
    pub subject: String,
    /// Answer with what the change would do, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}
