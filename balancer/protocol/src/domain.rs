//! The name of a trust domain: pages of images are shared inside one, and never beyond it.

use crate::path::NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The domain of guests directly in the root. No user can choose it, nor is it any container's name.
const HOST: &str = "=host";

/// The name of a trust domain, which is also the name of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

/// Why a text is not a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no trust domain: letters, digits and -_.:@+ make one, at most {NAME_BYTES_MAX}, no dot in front"
)]
pub struct DomainError(String);

impl Domain {
    /// The domain of guests that are in no container but the root.
    #[must_use]
    pub fn host() -> Self {
        Self(HOST.into())
    }

    /// The domain that a container in the root is unless another one is chosen: its name.
    #[must_use]
    pub fn of_container(name: &str) -> Self {
        // A folder's name must not begin with a dot.
        name.parse().unwrap_or_else(|_| Self(format!("={name}")))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@+".contains(c);
        let named = !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.chars().all(plain);
        if named && !text.starts_with('.') {
            Ok(Self(text.into()))
        } else {
            Err(DomainError(text.chars().take(64).collect()))
        }
    }
}

impl TryFrom<String> for Domain {
    type Error = DomainError;

    fn try_from(text: String) -> Result<Self, DomainError> {
        text.parse()
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_one_name() {
        for name in ["web", "tenant-7", "a.b:c@d+e_f"] {
            assert_eq!(name.parse::<Domain>().unwrap().as_str(), name);
        }
        for wrong in ["", ".", "..", ".a", "a/b", "a b", "=host", "\u{e9}", &"x".repeat(256)] {
            assert!(wrong.parse::<Domain>().is_err(), "{wrong}");
        }
        assert_eq!(Domain::of_container("web").as_str(), "web");
        assert_eq!(Domain::of_container(".web").as_str(), "=.web", "which nobody can choose");
    }
}
