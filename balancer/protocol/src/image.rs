//! Images of the shared pool: what a guest asks for, what it is handed, and where it mapped that.
//!
//! An image is immutable and named by its content, so both processes mean the same bytes by the same name.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// Images of one guest at most: each takes a virtio device and a KVM memory slot.
pub const IMAGES_MAX: usize = 16;

/// A managed image is filled, mapped and evicted in parts of this many bytes: a fault costs about the same for 4 KiB
/// and for 64 KiB (17 us), and what is mapped without being read is bounded by it.
pub const GRANULE_BYTES: u64 = 64 << 10;

/// Granules that one message may ask for.
pub const GRANULES_ASKED_MAX: u64 = 16;

/// What the digest in a name is, as OCI writes it.
const ALGORITHM: &str = "sha256";
const DIGEST_BYTES: usize = 32;

/// The SHA-256 of an image: `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")]
pub struct Digest([u8; DIGEST_BYTES]);

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no digest of an image: expected {ALGORITHM}: and 64 hexadecimal digits in lower case")]
pub struct DigestError(String);

impl Digest {
    /// The digest with these bytes.
    #[must_use]
    pub fn new(bytes: [u8; DIGEST_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its 64 hexadecimal digits, for file names.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}:{}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let wrong = || DigestError(text.chars().take(100).collect());
        let hex = text.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix(':')).ok_or_else(wrong)?;
        let plain = hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != 2 * DIGEST_BYTES || !plain {
            return Err(wrong());
        }
        let mut bytes = [0; DIGEST_BYTES];
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// How the host holds the pages of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// The page cache of its file: simple; who uses a page is sampled.
    Pagecache,
    /// Memory that the balancer fills: who touches a page first is seen exactly, and a budget is never exceeded.
    Managed,
}

/// An image that a guest may map. Its descriptor, open for reading alone, travels with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageHandle {
    /// Its name.
    pub digest: Digest,
    /// Its length, bytes: a multiple of 2 MiB.
    pub bytes: u64,
    /// What is behind the descriptor.
    pub backing: Backing,
}

/// Where a guest has an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MappedImage {
    /// The image.
    pub digest: Digest,
    /// First frame, guest-physical: a region of the guest's frame table begins there.
    pub first: u64,
    /// Frames: that region's.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let digest = Digest::new(std::array::from_fn(|index| index as u8 * 7));
        let text = digest.to_string();
        assert_eq!((text.len(), text.parse()), (71, Ok(digest)));
        assert_eq!(serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(), digest);
        let upper = text.to_uppercase();
        for wrong in ["", "sha256:", "sha512:00", &text[1..], &text[..70], &format!("{text}0"), &upper] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
        assert!("sha256:".parse::<Digest>().unwrap_err().to_string().contains("64 hexadecimal digits"));
        assert!("sha256:é".repeat(30).parse::<Digest>().is_err());
    }
}
