//! A lexer for Rust, as exact as the rules need it: comments, literals, words, and every other character by itself.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A comment, of a line or a block, documentation included.
    Comment,
    /// A string, character or number.
    Literal,
    /// An identifier, keyword or lifetime.
    Word,
    /// One character of punctuation.
    Mark,
}

/// A token: where it is and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its text.
    pub text: &'a str,
    /// The line on which it begins, counted from 1.
    pub line: usize,
}

impl Token<'_> {
    /// Whether it is this word or mark.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark) && self.text == text
    }
}

/// The tokens of a file.
#[must_use]
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < text.len() {
        let rest = &text[at..];
        let (kind, length) = match rest.chars().next() {
            Some(space) if space.is_whitespace() => {
                line += usize::from(space == '\n');
                at += space.len_utf8();
                continue;
            }
            _ => next(rest),
        };
        let token = &text[at..at + length];
        tokens.push(Token { kind, text: token, line });
        line += token.matches('\n').count();
        at += length;
    }
    tokens
}

/// Kind and length of the first token.
fn next(rest: &str) -> (Kind, usize) {
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, block_comment(rest));
    }
    let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    if let Some(length) = string(rest, word) {
        return (Kind::Literal, length);
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    match word {
        0 => (Kind::Mark, rest.chars().next().map_or(1, char::len_utf8)),
        _ if rest.starts_with(|c: char| c.is_ascii_digit()) => (Kind::Literal, word),
        _ => (Kind::Word, word),
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

/// Length of a string with its prefix; `word` is the length of the word that may be one.
fn string(rest: &str, word: usize) -> Option<usize> {
    let (prefix, after) = rest.split_at(word);
    if matches!(prefix, "b") && after.starts_with('\'') {
        return Some(word + character(after).1);
    }
    if matches!(prefix, "" | "b" | "c") && after.starts_with('"') {
        return Some(word + escaped(after, '"'));
    }
    if !matches!(prefix, "r" | "br" | "cr") {
        return None;
    }
    let hashes = after.len() - after.trim_start_matches('#').len();
    let inside = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(word + hashes + 1 + length)
}

/// A character literal or a lifetime.
fn character(rest: &str) -> (Kind, usize) {
    let mut after = rest.chars().skip(1);
    match (after.next(), after.next()) {
        (Some('\\'), _) => (Kind::Literal, escaped(rest, '\'')),
        (Some(one), Some('\'')) => (Kind::Literal, 2 + one.len_utf8()),
        _ => {
            let name = rest[1..].find(|c: char| !(c.is_alphanumeric() || c == '_'));
            (Kind::Word, name.map_or(rest.len(), |length| 1 + length))
        }
    }
}

/// Length of a literal whose end may be escaped.
fn escaped(rest: &str, end: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == end => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// Lines of each function with a body, from its `fn` to its last brace, and its name.
#[must_use]
pub fn functions<'a>(tokens: &[Token<'a>]) -> Vec<(&'a str, Range<usize>)> {
    let code: Vec<&Token<'a>> = tokens.iter().filter(|token| token.kind != Kind::Comment).collect();
    let named = |pair: &[&Token<'a>]| pair[0].is("fn") && pair[1].kind == Kind::Word;
    let starts = code.windows(2).enumerate().filter(|(_, pair)| named(pair)).map(|(at, _)| at);
    starts.filter_map(|at| Some((code[at + 1].text, code[at].line..body_end(&code[at..])? + 1))).collect()
}

/// The line on which the first body in braces ends; `None` for a declaration.
fn body_end(code: &[&Token<'_>]) -> Option<usize> {
    let (mut nested, mut braces) = (0i32, 0i32);
    for token in code.iter().filter(|token| token.kind == Kind::Mark) {
        match token.text {
            "(" | "[" => nested += 1,
            ")" | "]" => nested -= 1,
            ";" if nested == 0 && braces == 0 => return None,
            "{" if nested == 0 || braces > 0 => braces += 1,
            "}" if braces > 0 => {
                braces -= 1;
                if braces == 0 {
                    return Some(token.line);
                }
            }
            _ => {}
        }
    }
    None
}

/// Lines of the modules and functions below an attribute that names `test`.
#[must_use]
pub fn test_lines(tokens: &[Token<'_>]) -> Vec<Range<usize>> {
    let code: Vec<&Token<'_>> = tokens.iter().filter(|token| token.kind != Kind::Comment).collect();
    let mut lines = Vec::new();
    for at in 0..code.len().saturating_sub(2) {
        if !(code[at].is("#") && code[at + 1].is("[")) {
            continue;
        }
        let end = code[at..].iter().position(|token| token.is("]")).map_or(code.len(), |length| at + length);
        let names_test = code[at..end].iter().any(|token| token.is("test"));
        if names_test && let Some(last) = body_end(&code[(end + 1).min(code.len())..]) {
            lines.push(code[at].line..last + 1);
        }
    }
    lines
}

#[cfg(test)]
#[path = "rust_test.rs"]
mod tests;
