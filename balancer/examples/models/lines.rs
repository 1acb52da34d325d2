//! Lines of code of each system, counted in its own source as it was compiled.

use accounting::System;
use serde::Serialize;

/// A file of a system.
struct Source(&'static str, &'static str);

macro_rules! source {
    ($name:literal) => {
        Source($name, include_str!(concat!("../../accounting/src/", $name)))
    };
}

/// The files that one system alone needs.
fn own(system: System) -> Source {
    match system {
        System::Zones => source!("zones.rs"),
        System::Static => source!("static_ownership.rs"),
        System::Partial => source!("partial.rs"),
        System::Rss => source!("rss.rs"),
    }
}

/// The files that it shares with others.
fn shared(system: System) -> Vec<Source> {
    let mut files = vec![source!("charges.rs")];
    if matches!(system, System::Static | System::Partial) {
        files.extend([
            source!("ledger.rs"),
            source!("users.rs"),
            source!("frame_map.rs"),
            source!("inherited.rs"),
        ]);
    }
    files
}

/// Lines of code, without blanks, comments and tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// Of the system's own file.
    pub own: usize,
    /// Of the files that it shares with another system.
    pub shared: usize,
    /// All of these files.
    pub files: Vec<&'static str>,
}

impl Lines {
    /// Counts the lines of a system.
    #[must_use]
    pub fn of(system: System) -> Self {
        let (own, shared) = (own(system), shared(system));
        Self {
            own: count(own.1),
            shared: shared.iter().map(|file| count(file.1)).sum(),
            files: std::iter::once(own.0).chain(shared.iter().map(|file| file.0)).collect(),
        }
    }
}

fn count(source: &str) -> usize {
    let code = source.split("#[cfg(test)]").next().unwrap_or(source);
    code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blanks_and_tests_do_not_count() {
        assert_eq!(count("//! a\n\nuse b;\n/// c\nfn d() {\n    // e\n}\n\n#[cfg(test)]\nmod tests {}\n"), 3);
    }
}
