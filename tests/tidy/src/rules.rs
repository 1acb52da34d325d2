//! Rules applied to this repository: to each file with an extension.

use crate::{Offence, length, tree, width, words};
use std::fs;
use std::path::Path;

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

/// What the rules of lengths, width and words find in this repository.
#[must_use]
pub fn style() -> Vec<Offence> {
    let functions = |path: &Path, text: &str| match tree::is_test(path) {
        true => vec![],
        false => length::functions(path, text),
    };
    // The list of forbidden words has all of them.
    let words_of_rust = |path: &Path, text: &str| match path.ends_with("tidy/src/words.rs") {
        true => vec![],
        false => words::of_rust(path, text),
    };
    let of_rust = [
        found("rs", length::file),
        found("rs", functions),
        found("rs", width::lines),
        found("rs", words_of_rust),
    ];
    let of_markdown = [found("md", width::lines), found("md", words::of_markdown)];
    of_rust.into_iter().chain(of_markdown).flatten().collect()
}
