//! The rules whose known offences are counted: lengths, width and words.

use crate::{Offence, length, safety, tree, width, words};
use std::fs;
use std::path::{Path, PathBuf};

/// The text of a file of the repository.
///
/// # Panics
/// When it cannot be read.
#[must_use]
pub fn text(path: &Path) -> String {
    fs::read_to_string(tree::root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a rule finds in all files with an extension.
pub fn found(extension: &str, rule: impl Fn(&Path, &str) -> Vec<Offence>) -> Vec<Offence> {
    tree::files(extension).iter().flat_map(|path| rule(path, &text(path))).collect()
}

/// Files with unsafe code outside of tests.
#[must_use]
pub fn unsafe_files() -> Vec<PathBuf> {
    let files = tree::files("rs").into_iter().filter(|path| !tree::is_test(path));
    files.filter(|path| safety::first_unsafe(&text(path)).is_some()).collect()
}

/// Each rule by its name in `tests/tidy/known.txt`, and what it finds in this repository.
#[must_use]
pub fn counted() -> [(&'static str, Vec<Offence>); 4] {
    let functions = |path: &Path, text: &str| match tree::is_test(path) {
        true => vec![],
        false => length::functions(path, text),
    };
    // The list of forbidden words has all of them.
    let words_of_rust = |path: &Path, text: &str| match path.ends_with("tidy/src/words.rs") {
        true => vec![],
        false => words::of_rust(path, text),
    };
    [
        ("file-length", found("rs", length::file)),
        ("function-length", found("rs", functions)),
        ("width", [found("rs", width::lines), found("md", width::lines)].concat()),
        ("words", [found("rs", words_of_rust), found("md", words::of_markdown)].concat()),
    ]
}
