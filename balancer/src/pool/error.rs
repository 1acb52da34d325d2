//! Why an image does not come into the pool.

use super::images::IMAGES_OPEN_MAX;
use protocol::domain::Domain;
use protocol::image::Digest;
use std::io;

/// Why an image does not come into the pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// There are too many.
    #[error("There are {IMAGES_OPEN_MAX} images in use already, the most there can be")]
    Full,
    /// The file behind it is another one than guests have mapped.
    #[error(
        "Image {digest} of domain {domain} is another file now than the one that {guests} map: it can be mapped again \
         once they have ended"
    )]
    OtherFile {
        /// The image.
        digest: Digest,
        /// The domain.
        domain: Domain,
        /// Names of the guests that map it.
        guests: String,
    },
    /// The system refused.
    #[error("Cannot read the file of image {digest}: {source}")]
    Io {
        /// The image.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
}
