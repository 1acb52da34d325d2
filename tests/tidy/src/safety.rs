//! `unsafe` is in few files, and every crate without it says so.

use crate::{Offence, rust};
use std::path::Path;

/// Whether the code of a file outside of tests has an `unsafe` block, function or trait, and its first line.
#[must_use]
pub fn first_unsafe(text: &str) -> Option<usize> {
    let tokens = rust::tokens(text);
    let tests = rust::test_lines(&tokens);
    let outside = |line: usize| !tests.iter().any(|test| test.contains(&line));
    tokens.iter().find(|token| token.is("unsafe") && outside(token.line)).map(|token| token.line)
}

/// Lines above `unsafe` in which its note may begin.
const NOTE_LINES: usize = 8;

/// Blocks and implementations that do not say why they are sound. Clippy asks for it too, where it runs.
#[must_use]
pub fn notes(path: &Path, text: &str) -> Vec<Offence> {
    let tokens = rust::tokens(text);
    let is_note = |token: &rust::Token<'_>| {
        token.kind == rust::Kind::Comment
            && (token.text.contains("SAFETY:") || token.text.contains("# Safety"))
    };
    let notes: Vec<usize> = tokens.iter().filter(|token| is_note(token)).map(|token| token.line).collect();
    let has_note =
        |line: usize| notes.iter().any(|note| (line.saturating_sub(NOTE_LINES)..=line).contains(note));
    tokens
        .windows(2)
        .filter(|pair| pair[0].is("unsafe") && ["{", "impl"].iter().any(|next| pair[1].is(next)))
        .filter(|pair| !has_note(pair[0].line))
        .map(|pair| {
            let what = "unsafe code without a comment `// SAFETY:` that says why it is sound".into();
            Offence { path: path.into(), line: pair[0].line, what }
        })
        .collect()
}

/// A file with `unsafe` that is not on the list, or one on the list without.
#[must_use]
pub fn file(path: &Path, text: &str, allowed: &[&str]) -> Vec<Offence> {
    let is_allowed = allowed.iter().any(|allowed| Path::new(allowed) == path);
    let (line, what) = match (first_unsafe(text), is_allowed) {
        (Some(line), false) => (line, "unsafe code in a file that is not in tests/tidy/unsafe.txt"),
        (None, true) => (1, "no unsafe code any more: take the file out of tests/tidy/unsafe.txt"),
        _ => return vec![],
    };
    vec![Offence { path: path.into(), line, what: what.into() }]
}

/// The root file of a crate whose files have no `unsafe`: it has to forbid it.
#[must_use]
pub fn crate_root(path: &Path, text: &str) -> Vec<Offence> {
    if text.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]") {
        return vec![];
    }
    let what = "this crate has no unsafe code: it can have #![forbid(unsafe_code)]".into();
    vec![Offence { path: path.into(), line: 1, what }]
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSAFE: &str = "// unsafe\nfn f() {\n    unsafe { g() }\n}\n";

    #[test]
    fn unsafe_code_is_found_where_it_is_not_allowed() {
        let path = Path::new("a/b.rs");
        assert_eq!(file(path, UNSAFE, &["a/b.rs"]), []);
        assert_eq!(file(path, UNSAFE, &["b.rs"])[0].line, 3);
        assert_eq!(file(path, "// unsafe\n#![forbid(unsafe_code)]", &[]), []);
        assert_eq!(file(path, &format!("#[cfg(test)]\nmod tests {{\n{UNSAFE}}}"), &[]), []);
    }

    #[test]
    fn unsafe_code_says_why_it_is_sound() {
        let path = Path::new("a.rs");
        assert_eq!(notes(path, UNSAFE)[0].line, 3);
        assert_eq!(notes(path, "// SAFETY: it is.\nunsafe { g() }"), []);
        assert_eq!(
            notes(path, &format!("// SAFETY: far away.\n{}unsafe impl T for S {{}}", "\n".repeat(8))).len(),
            1
        );
        assert_eq!(notes(path, "#[unsafe(no_mangle)]\nfn f() {}"), []);
    }

    #[test]
    fn the_list_does_not_keep_what_is_clean() {
        assert_eq!(file(Path::new("a/b.rs"), "fn f() {}", &["a/b.rs"]).len(), 1);
    }

    #[test]
    fn a_crate_without_unsafe_code_forbids_it() {
        let path = Path::new("a/src/lib.rs");
        assert_eq!(crate_root(path, "//! Doc.\n\n#![forbid(unsafe_code)]\n"), []);
        assert_eq!(crate_root(path, "//! Doc.\n").len(), 1);
    }
}
