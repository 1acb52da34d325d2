//! The name of a trust domain: pages of images are shared inside one domain, and never between two.

use crate::path::NAME_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// The domain of guests directly in the root. Users cannot choose it, and no container has this name.
const HOST: &str = "=host";

/// The name of a trust domain, which is also the name of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "tenants")]
pub struct Domain(String);

/// Why a text is not the name of a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a trust domain: write at most {NAME_BYTES_MAX} letters, digits and -_.:@+, without a dot in front"
)]
pub struct DomainError(String);

impl Domain {
    /// Texts that are names of domains, as a regular expression.
    pub const PATTERN: &str = "^[A-Za-z0-9_:@+-][A-Za-z0-9_.:@+-]{0,254}$";

    /// The domain of guests that are directly in the root.
    #[must_use]
    pub fn host() -> Self {
        Self(HOST.into())
    }

    /// The domain of a container in the root unless another one is chosen: its name.
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
        assert_eq!(Domain::of_container(".web").as_str(), "=.web", "which users cannot choose");
    }
}
