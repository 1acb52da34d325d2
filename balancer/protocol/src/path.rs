//! The path of a container in the limit tree: `/web/a`. The root is `/`, which stands for the host.

use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// Longest name of one path component, in bytes: cgroup v2's (`NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;
/// Deepest path. Bounds every walk to the root.
pub const DEPTH_MAX: usize = 16;

/// A checked, normalized path: starts with `/`, has no empty component, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "/web/a")]
pub struct ContainerPath(String);

/// Why a text is not the path of a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a container path: {reason} (write /web/a)")]
pub struct ParsePathError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A name as a regular expression (ECMA-262 and Rust): neither `.` nor `..`.
macro_rules! name {
    () => {
        concat!(
            r"(?:[A-Za-z0-9_:@+-][A-Za-z0-9_.:@+-]{0,254}|\.[A-Za-z0-9_:@+-][A-Za-z0-9_.:@+-]{0,253}",
            r"|\.\.[A-Za-z0-9_.:@+-]{1,253})"
        )
    };
}

impl ContainerPath {
    /// Texts that are paths, as a regular expression.
    pub const PATTERN: &str = concat!("^/+(?:", name!(), "(?:/+", name!(), "){0,15}/*)?$");
    /// Texts that are paths of containers other than the root, without the slash in front.
    pub const INSIDE_PATTERN: &str = concat!("^/*", name!(), "(?:/+", name!(), "){0,15}/*$");

    /// The root of the tree: the host.
    #[must_use]
    pub fn root() -> Self {
        Self("/".into())
    }

    /// True for `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path above, `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        match self.0.rfind('/') {
            Some(0) => Some(Self::root()),
            Some(end) => Some(Self(self.0[..end].into())),
            None => unreachable!("a path starts with a slash"),
        }
    }

    /// True if this path is `above` or lies inside it.
    #[must_use]
    pub fn is_inside(&self, above: &Self) -> bool {
        above.is_root() || self == above || self.below(above).is_some()
    }

    /// The part behind `above` of a path inside it: `a/b` of `/web/a/b` for `/web`.
    #[must_use]
    pub fn below(&self, above: &Self) -> Option<&str> {
        let rest = if above.is_root() {
            self.0.strip_prefix('/')
        } else {
            self.0.strip_prefix(&above.0)?.strip_prefix('/')
        };
        rest.filter(|rest| !rest.is_empty())
    }

    /// This path and all above it, the root last.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> + use<> {
        std::iter::successors(Some(self.clone()), Self::parent)
    }
}

/// Paths are in the order of their text.
impl Borrow<str> for ContainerPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerPath {
    type Err = ParsePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason: String| ParsePathError { text: text.chars().take(128).collect(), reason };
        if !text.starts_with('/') {
            return Err(fail("it does not start with /".into()));
        }
        let names: Vec<&str> = text.split('/').filter(|name| !name.is_empty()).collect();
        if names.len() > DEPTH_MAX {
            return Err(fail(format!("it is deeper than {DEPTH_MAX}")));
        }
        for name in &names {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:@+".contains(c);
            if name.len() > NAME_BYTES_MAX {
                return Err(fail(format!("a name is longer than {NAME_BYTES_MAX} bytes")));
            }
            if *name == "." || *name == ".." || !name.chars().all(plain) {
                let name: String = name.chars().take(32).collect();
                return Err(fail(format!(
                    "the name {name:?} has other characters than letters, digits and -_.:@+"
                )));
            }
        }
        Ok(Self(format!("/{}", names.join("/"))))
    }
}

impl TryFrom<String> for ContainerPath {
    type Error = ParsePathError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ContainerPath> for String {
    fn from(path: ContainerPath) -> Self {
        path.0
    }
}

impl fmt::Display for ContainerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_normalized() {
        for (text, path) in [("/", "/"), ("/web/a", "/web/a"), ("//web///a/", "/web/a")] {
            assert_eq!(text.parse::<ContainerPath>().map(String::from), Ok(path.into()));
        }
    }

    #[test]
    fn a_text_that_is_not_a_path_is_refused() {
        let deep = "/a".repeat(DEPTH_MAX + 1);
        for text in ["", "web", "/..", "/a/./b", "/a b", "/a\n", "/\u{e9}", deep.as_str()] {
            assert!(text.parse::<ContainerPath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn ancestors_end_at_the_root() {
        let path: ContainerPath = "/web/a".parse().unwrap();
        let all: Vec<String> = path.ancestors().map(String::from).collect();
        assert_eq!(all, ["/web/a", "/web", "/"]);
    }

    #[test]
    fn a_path_inside_another_continues_it_behind_a_slash() {
        let path = |text: &str| text.parse::<ContainerPath>().unwrap();
        for (inner, above, below) in [
            ("/web/a/b", "/web", Some("a/b")),
            ("/web", "/", Some("web")),
            ("/web", "/web", None),
            ("/", "/", None),
            ("/webby/a", "/web", None),
            ("/web", "/web/a", None),
        ] {
            let (inner, above) = (path(inner), path(above));
            assert_eq!(inner.below(&above), below, "{inner} {above}");
            assert_eq!(inner.is_inside(&above), inner.ancestors().any(|ancestor| ancestor == above));
        }
    }

    fn unanchored(pattern: &str) -> &str {
        pattern.strip_prefix('^').and_then(|pattern| pattern.strip_suffix('$')).unwrap()
    }

    proptest! {
        #[test]
        fn the_patterns_are_those_of_paths(
            path in proptest::string::string_regex(unanchored(ContainerPath::PATTERN)).unwrap(),
            inside in proptest::string::string_regex(unanchored(ContainerPath::INSIDE_PATTERN)).unwrap(),
        ) {
            prop_assert!(path.parse::<ContainerPath>().is_ok(), "{}", path);
            let inside = format!("/{inside}").parse::<ContainerPath>();
            prop_assert!(inside.is_ok_and(|inside| !inside.is_root()));
        }

        #[test]
        fn a_path_parses_to_itself(text in "(/[a-z0-9._-]{1,8}){0,6}/?") {
            if let Ok(path) = text.parse::<ContainerPath>() {
                prop_assert_eq!(path.as_str().parse::<ContainerPath>().unwrap(), path);
            }
        }
    }
}
