//! Names of images on the command line.

use super::error::failed;
use super::{Store, StoreError};
use protocol::image::Digest;
use std::fs;
use std::path::Path;

/// Fewest digits of a digest that stand for it: 32 bits, beyond chance in a folder of some thousand images.
const DIGITS_MIN: usize = 8;

impl Store {
    /// The image that is named by `sha256:` and 64 digits, by 8 or more of its first digits with or without `sha256:`,
    /// or by a path in this store (of `images` or of a domain).
    ///
    /// # Errors
    /// When it means none here, or several.
    pub fn resolve(&self, text: &str) -> Result<Digest, StoreError> {
        if text.contains('/') {
            return self.resolve_path(Path::new(text));
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let plain = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if !plain || !(DIGITS_MIN..=64).contains(&digits.len()) {
            return Err(StoreError::Malformed { text: text.chars().take(100).collect() });
        }
        let mut found = self.digests()?;
        found.retain(|digest| digest.hex().starts_with(digits));
        found.sort_unstable();
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(StoreError::Unknown { text: text.into() }),
            several => {
                let choices: Vec<_> = several.iter().map(Digest::to_string).collect();
                Err(StoreError::Ambiguous { text: text.into(), choices: choices.join(", ") })
            }
        }
    }

    fn resolve_path(&self, given: &Path) -> Result<Digest, StoreError> {
        let path = fs::canonicalize(given).map_err(failed("find", given))?;
        let inside = path.strip_prefix(&self.folder).ok();
        let name = inside.and_then(Path::file_name).and_then(|name| name.to_str());
        let hex = name.and_then(|name| name.strip_suffix(".erofs"));
        let digest = hex.and_then(|hex| format!("sha256:{hex}").parse().ok());
        digest.ok_or_else(|| StoreError::Outside { path, folder: self.folder.clone() })
    }
}
