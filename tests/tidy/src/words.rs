//! Words that the style forbids in comments and in Markdown. Names of the code, in backticks, and quotations are not
//! prose.

use crate::rust::{self, Kind};
use crate::{Offence, markdown};
use std::path::Path;

/// A word or phrase, and what to write.
type Word = (&'static str, &'static str);

/// What is not written. Words are matched whole, whatever their case.
const FORBIDDEN: &[Word] = &[
    ("nobody", "name the process, guest or container: it is not a person"),
    ("somebody", "name the process, guest or container: it is not a person"),
    ("whoever", "name the noun: the guest that, each process that"),
    ("whom", "name the noun: the container that is charged"),
    ("anew", "again"),
    ("so long", "repeat the quantity, or write `as long as`"),
    ("by and by", "gradually, or name the step"),
    ("dearer", "more expensive, slower"),
    ("beside", "next to, in addition to, while"),
    ("page map", "pagemap"),
    ("lets go", "releases, evicts"),
    ("let go", "released, evicted"),
    ("gives away", "releases"),
    ("give away", "release"),
    ("takes back", "reclaims, deflates"),
    ("take back", "reclaim, deflate"),
    ("taken back", "reclaimed, deflated"),
    ("took back", "reclaimed, deflated"),
    ("thrown out", "evicted, discarded"),
    ("throw out", "evict, discard"),
    ("throws out", "evicts, discards"),
    ("told of", "reported"),
    ("tells of", "reports"),
    ("good-bye", "end"),
];

/// After `is no`: what makes it English.
const IS_NO: &[&str] =
    &["longer", "more", "less", "larger", "smaller", "greater", "later", "earlier", "other"];

/// Forbidden words in the comments of a file of Rust.
#[must_use]
pub fn of_rust(path: &Path, text: &str) -> Vec<Offence> {
    let comments = rust::tokens(text).into_iter().filter(|token| token.kind == Kind::Comment);
    let lines = comments.flat_map(|token| {
        let first = token.line;
        token.text.lines().enumerate().map(move |(at, line)| (first + at, line)).collect::<Vec<_>>()
    });
    of_lines(path, lines)
}

/// Forbidden words in the prose of a Markdown page.
#[must_use]
pub fn of_markdown(path: &Path, text: &str) -> Vec<Offence> {
    of_lines(path, markdown::prose(text))
}

fn of_lines<'a>(path: &Path, lines: impl Iterator<Item = (usize, &'a str)>) -> Vec<Offence> {
    let offence = |line: usize, what: String| Offence { path: path.into(), line, what };
    lines.flat_map(|(line, text)| in_line(text).into_iter().map(move |what| offence(line, what))).collect()
}

fn in_line(line: &str) -> Vec<String> {
    let prose = format!(" {} ", words(&without(&without(line, '`'), '"')));
    let mut found: Vec<String> = FORBIDDEN
        .iter()
        .filter(|(word, _)| prose.contains(&format!(" {word} ")))
        .map(|(word, better)| format!("\"{word}\": write {better}"))
        .collect();
    for (at, _) in prose.match_indices(" is no ").filter(|(at, _)| !prose[..*at].ends_with("there")) {
        let next = prose[at + " is no ".len()..].split(' ').next().unwrap_or_default();
        if next.starts_with(char::is_alphabetic) && !IS_NO.contains(&next) {
            found.push(format!("\"is no {next}\": write \"is not\""));
        }
    }
    found
}

/// Words in lower case with one space between them; a sign of punctuation ends a phrase.
fn words(text: &str) -> String {
    let mut words = String::new();
    for c in text.chars() {
        match c {
            c if c.is_alphanumeric() || matches!(c, '-' | '\'' | '_') => words.extend(c.to_lowercase()),
            c if c.is_whitespace() => words.push(' '),
            c => words.extend([' ', c, ' ']),
        }
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The line without what is between two signs. One that has no partner on its line stays.
fn without(line: &str, sign: char) -> String {
    let parts: Vec<&str> = line.split(sign).collect();
    let is_closed = parts.len() % 2 == 1;
    if is_closed { parts.into_iter().step_by(2).collect::<Vec<_>>().join(" - ") } else { line.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(comment: &str) -> usize {
        of_rust(Path::new("a.rs"), &format!("// {comment}\n")).len()
    }

    #[test]
    fn each_forbidden_word_is_found_in_a_comment() {
        for (word, _) in FORBIDDEN {
            assert_eq!(found(&format!("The guest {word} it.")), 1, "{word}");
        }
        assert_eq!(found("Nobody, whoever it is, asks anew"), 3);
    }

    #[test]
    fn parts_of_words_and_code_are_not_found() {
        for fine in
            ["besides", "`nobody` is a user", "somebody_else()", "so. Long", "let. Go", "not \"anew\""]
        {
            assert_eq!(found(fine), 0, "{fine}");
        }
        assert_eq!(found("the guest's \" nobody"), 1, "a quotation that does not end on its line");
        assert_eq!(of_rust(Path::new("a.rs"), "let nobody = \"whom\";"), []);
    }

    #[test]
    fn is_no_is_found_before_a_noun() {
        assert_eq!(found("this is no image"), 1);
        assert_eq!(found("it is no longer there, and is no more than 5"), 0);
        assert_eq!(found("there is no image"), 0);
    }

    #[test]
    fn code_in_markdown_is_not_prose() {
        let text = "nobody\n```\nnobody\n```\n    nobody\n";
        let lines: Vec<_> = of_markdown(Path::new("a.md"), text).iter().map(|found| found.line).collect();
        assert_eq!(lines, [1]);
    }

    #[test]
    fn every_line_of_a_block_comment_counts() {
        assert_eq!(of_rust(Path::new("a.rs"), "/* a\n whom\n */")[0].line, 2);
    }
}
