//! The files of this repository.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose content is made or downloaded.
const MADE: [&str; 4] = ["target", "corpus", "artifacts", "node_modules"];

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate is two folders below the root").into()
}

/// Paths of the files with an extension, from the root, sorted.
///
/// # Panics
/// When a folder cannot be read.
#[must_use]
pub fn files(extension: &str) -> Vec<PathBuf> {
    let root = root();
    let mut found = Vec::new();
    collect(&root, &root, extension, &mut found);
    found.sort();
    found
}

fn collect(root: &Path, folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry of the repository").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') || MADE.contains(&name) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path.strip_prefix(root).expect("below the root").into());
        }
    }
}

/// Whether a file of Rust has tests only: they may have long functions and unsafe code.
#[must_use]
pub fn is_test(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_below = |folder: &str| path.components().any(|part| part.as_os_str() == folder);
    name.ends_with("_test.rs")
        || name == "testing.rs"
        || ["tests", "benches", "testing"].into_iter().any(is_below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_repository_are_found_and_products_of_a_build_are_not() {
        let files = files("rs");
        assert!(files.contains(&PathBuf::from("tests/tidy/src/tree.rs")));
        assert!(files.iter().all(|path| !path.starts_with("target")));
    }

    #[test]
    fn files_of_tests_are_known() {
        for path in
            ["a/src/b_test.rs", "tests/src/lib.rs", "a/tests/b/mod.rs", "a/benches/b.rs", "a/src/testing.rs"]
        {
            assert!(is_test(Path::new(path)), "{path}");
        }
        assert!(!is_test(Path::new("a/src/attest.rs")));
    }
}
