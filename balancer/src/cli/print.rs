//! Standard output and standard error.

use anyhow::Context;
use serde::Serialize;
use std::io::Write;

/// Prints a result. False once the reader has closed the pipe, which is not an error (`balancer ps | head`); a full
/// disk is one.
pub(super) fn print(text: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("Cannot write to standard output"),
    }
}

/// Prints the outcome of a change. The change is made, so it is not an error if the outcome cannot be written.
pub(super) fn print_outcome(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).ok();
}

/// An object as text for people, or with `--json` as it is.
pub(super) fn shown<T: Serialize>(object: &T, as_json: bool, text: impl FnOnce(&T) -> String) -> String {
    if as_json { json(object) } else { text(object) }
}

/// An object as JSON.
pub(super) fn json(object: &impl Serialize) -> String {
    serde_json::to_string_pretty(object).expect("objects have only plain fields") + "\n"
}

/// One line on standard error, if it can be written: the exit code is the answer in any case.
pub(super) fn print_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "balancer: {text}");
}
