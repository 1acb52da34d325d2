//! Bindings: a container is charged for an image as a whole, by the image itself or by a host path that it was built
//! from.
//!
//! A binding of the image itself wins; of paths, the longest one that the image's origin is or lies in.

use protocol::image::{Digest, DigestError};
use protocol::path::ContainerPath;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Bindings at a time, at most.
pub const BINDINGS_MAX: usize = 1024;
/// Longest path, bytes: `PATH_MAX`.
const PATH_BYTES_MAX: usize = 4096;

/// The subject of a binding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// Images that were built from this path or from below it.
    Path(String),
    /// One image.
    Image(Digest),
}

impl Subject {
    /// Texts that name a path or an image, as a regular expression: a path without control characters and `..`, or 8 or
    /// more digits of a digest.
    pub const PATTERN: &str = concat!(
        // A name in a path: with another first character than a dot, a dot and that, or two dots and more.
        r"^(?:(?:/(?:[^/.\x00-\x1f\x7f-\x9f][^/\x00-\x1f\x7f-\x9f]*",
        r"|\.(?:[^/.\x00-\x1f\x7f-\x9f][^/\x00-\x1f\x7f-\x9f]*)?",
        r"|\.\.[^/\x00-\x1f\x7f-\x9f]+)?)+",
        r"|(?:sha256:)?[0-9a-f]{8,64})$"
    );
}

/// Why a text is not a subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// It is not a valid path.
    #[error("{text:?} is not a path that can be bound: {reason}")]
    Path {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It is not a digest either.
    #[error("{0:?} is neither a path (write /srv/images) nor the digest of an image (sha256:...)")]
    Neither(String),
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        if !text.starts_with('/') {
            let neither = |_: DigestError| SubjectError::Neither(text.chars().take(128).collect());
            return text.parse().map(Self::Image).map_err(neither);
        }
        let fail = |reason| Err(SubjectError::Path { text: text.chars().take(128).collect(), reason });
        if text.len() > PATH_BYTES_MAX {
            return fail("it is longer than 4096 bytes");
        }
        let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if names.contains(&"..") {
            return fail("it leads upwards");
        }
        if text.chars().any(char::is_control) {
            return fail("it has control characters");
        }
        Ok(Self::Path(format!("/{}", names.join("/"))))
    }
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;

    fn try_from(text: String) -> Result<Self, SubjectError> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.pad(path),
            Self::Image(digest) => f.pad(&digest.to_string()),
        }
    }
}

impl Subject {
    /// True if it covers an image, by its digest or its origin.
    #[must_use]
    pub fn covers(&self, digest: &Digest, origin: &str) -> bool {
        match self {
            Self::Image(bound) => bound == digest,
            Self::Path(path) if path == "/" => origin.starts_with('/'),
            Self::Path(path) => origin
                .strip_prefix(path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        }
    }

    /// Of two subjects that cover an image the one with the larger precision decides.
    fn precision(&self) -> usize {
        match self {
            Self::Image(_) => usize::MAX,
            Self::Path(path) => path.len(),
        }
    }
}

/// All bindings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bindings(BTreeMap<Subject, ContainerPath>);

impl Bindings {
    /// The container that pays for an image, if it is bound.
    #[must_use]
    pub fn of(&self, digest: &Digest, origin: &str) -> Option<&ContainerPath> {
        self.0.get(self.deciding(digest, origin)?)
    }

    /// The binding that decides about an image: the most precise one that covers it.
    #[must_use]
    pub fn deciding(&self, digest: &Digest, origin: &str) -> Option<&Subject> {
        let covering = self.0.keys().filter(|subject| subject.covers(digest, origin));
        covering.max_by_key(|subject| subject.precision())
    }

    /// The container that exactly this subject is bound to.
    #[must_use]
    pub fn get(&self, subject: &Subject) -> Option<&ContainerPath> {
        self.0.get(subject)
    }

    /// Binds a subject, and replaces an earlier binding.
    pub fn put(&mut self, subject: Subject, container: ContainerPath) {
        self.0.insert(subject, container);
    }

    /// Unbinds it. False if it was not bound.
    pub fn remove(&mut self, subject: &Subject) -> bool {
        self.0.remove(subject).is_some()
    }

    /// All of them in the order of their text.
    pub fn iter(&self) -> impl Iterator<Item = (&Subject, &ContainerPath)> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Subject, ContainerPath)> for Bindings {
    fn from_iter<I: IntoIterator<Item = (Subject, ContainerPath)>>(bindings: I) -> Self {
        Self(bindings.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings(all: &[(&str, &str)]) -> Bindings {
        all.iter().map(|(subject, to)| (subject.parse().unwrap(), to.parse().unwrap())).collect()
    }

    #[test]
    fn the_longest_path_wins_and_the_image_itself_over_all() {
        let (one, other) = (Digest::new([1; 32]), Digest::new([2; 32]));
        let bindings = bindings(&[
            ("/", "/all"),
            ("/srv/images", "/images"),
            ("/srv/images/debian//lib/", "/lib"),
            (&one.to_string(), "/one"),
        ]);
        let of = |digest, origin| bindings.of(digest, origin).map(|path| path.as_str());
        for (digest, origin, container) in [
            (&other, "/srv/images/debian/lib", Some("/lib")),
            (&other, "/srv/images/debian/lib/x86", Some("/lib")),
            (&other, "/srv/images/debian/libx", Some("/images")),
            (&other, "/srv/images", Some("/images")),
            (&other, "/home", Some("/all")),
            (&other, "docker.io/library/debian:12", None),
            (&one, "/srv/images/debian/lib", Some("/one")),
            (&one, "docker.io/library/debian:12", Some("/one")),
        ] {
            assert_eq!(of(digest, origin), container, "{origin}");
        }
    }

    #[test]
    fn a_text_that_cannot_be_bound_is_refused() {
        let long = format!("/{}", "x".repeat(4096));
        for wrong in ["", "lib", "sha256:12", "../lib", "/srv/../etc", "/a\nb", &long] {
            assert!(wrong.parse::<Subject>().is_err(), "{wrong}");
        }
        let subject: Subject = "//srv/./a/".parse().unwrap();
        assert_eq!(subject.to_string(), "/srv/a");
        assert_eq!(subject.to_string().parse(), Ok(subject));
    }
}
