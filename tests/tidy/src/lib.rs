//! The rules of the house that a machine can check. Each rule is a function from text to offences, with a unit test
//! that shows it find one; `tests/tree.rs` applies all of them to this repository.
//!
//! The rules read Rust through [`rust::tokens`], a small lexer: words of a string are not words of a comment, and a
//! brace in a character literal does not end a function.

#![forbid(unsafe_code)]

pub mod layers;
pub mod length;
pub mod markdown;
pub mod rules;
pub mod rust;
pub mod safety;
pub mod tree;
pub mod width;
pub mod words;

use std::fmt;
use std::path::PathBuf;

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offence {
    /// The file, from the root of the repository.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, with the value and the bound.
    pub what: String,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.what)
    }
}
