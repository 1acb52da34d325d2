//! Files and functions stay short enough to be read in one go.

use crate::{Offence, rust};
use std::path::Path;

/// Lines of a file of Rust.
pub const FILE_LINES_MAX: usize = 500;
/// Lines of a function, from its `fn` to its last brace. Tests may be longer.
pub const FUNCTION_LINES_MAX: usize = 70;

/// A file that is too long.
#[must_use]
pub fn file(path: &Path, text: &str) -> Vec<Offence> {
    let lines = text.lines().count();
    if lines <= FILE_LINES_MAX {
        return vec![];
    }
    let what = format!("{lines} lines, at most {FILE_LINES_MAX} are allowed: make two files of it");
    vec![Offence { path: path.into(), line: FILE_LINES_MAX + 1, what }]
}

/// Functions outside of tests that are too long.
#[must_use]
pub fn functions(path: &Path, text: &str) -> Vec<Offence> {
    let tokens = rust::tokens(text);
    let tests = rust::test_lines(&tokens);
    let is_long = |lines: &std::ops::Range<usize>| lines.len() > FUNCTION_LINES_MAX;
    rust::functions(&tokens)
        .into_iter()
        .filter(|(_, lines)| is_long(lines) && !tests.iter().any(|test| test.contains(&lines.start)))
        .map(|(name, lines)| {
            let what = format!("{name} has {} lines, at most {FUNCTION_LINES_MAX} are allowed", lines.len());
            Offence { path: path.into(), line: lines.start, what }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_have_500_lines_and_not_501() {
        let path = Path::new("a.rs");
        assert_eq!(file(path, &"\n".repeat(500)), []);
        assert_eq!(file(path, &"\n".repeat(501))[0].line, 501);
    }

    #[test]
    fn a_function_may_have_70_lines_and_not_71() {
        let function = |lines: usize| format!("/// Doc.\nfn f() {{{}}}\n", "\n".repeat(lines - 1));
        let path = Path::new("a.rs");
        assert_eq!(functions(path, &function(70)), []);
        let [offence] = &functions(path, &function(71))[..] else { panic!("one offence") };
        assert_eq!((offence.line, offence.what.split(',').next().unwrap()), (2, "f has 71 lines"));
        assert_eq!(functions(path, &format!("#[test]\n{}", function(71).replace("/// Doc.\n", ""))), []);
    }
}
