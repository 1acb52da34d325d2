//! Running the few programs of the system that this crate needs.

use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// Lines of a failed program's output that an error carries.
const STDERR_LINES_MAX: usize = 12;

/// Runs a program to its end and returns what it printed on stdout.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let ran = command.stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = ran.map_err(|source| missing(command, source))?;
    if status.success() {
        return Ok(stdout);
    }
    Err(Error::Tool { program: name(command), status, stderr: tail(&String::from_utf8_lossy(&stderr)) })
}

/// The error of a program that could not be started.
pub(crate) fn missing(command: &Command, source: std::io::Error) -> Error {
    Error::ToolMissing { program: command.get_program().to_string_lossy().into_owned(), source }
}

/// The program's name with its first words, for messages.
pub(crate) fn name(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    let is_verb = |word: &String| !word.starts_with('-') && !word.contains(['=', '/']);
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()).filter(is_verb).take(2));
    words.join(" ")
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(STDERR_LINES_MAX)..].join("; ")
}
