//! The last lines of consoles and logs: shown when a test fails, after its hosts and their folders are gone.

use anyhow::Result;
use std::cell::RefCell;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Lines kept of each file.
const LINES: usize = 25;
/// Endings of the files in a host's folder that are kept.
const ENDINGS: [&str; 3] = ["console", "errors", "log"];

thread_local! {
    static KEPT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps the last lines of the consoles and logs in a host's folder and below.
pub(crate) fn keep(dir: &Path) {
    let mut text = String::new();
    collect(dir, &mut text);
    KEPT.with_borrow_mut(|kept| kept.push_str(&text));
}

/// Runs a test; its error is followed by what was kept meanwhile on this thread.
///
/// # Errors
/// The test's own.
pub fn with<T>(test: impl FnOnce() -> Result<T>) -> std::result::Result<T, String> {
    let result = test();
    let kept = KEPT.take();
    result.map_err(|error| format!("{error:#}\n{kept}"))
}

fn collect(dir: &Path, text: &mut String) {
    let mut paths: Vec<_> =
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, text);
        } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| *known == ending)) {
            let content = fs::read(&path).unwrap_or_default();
            let content = String::from_utf8_lossy(&content);
            let lines: Vec<&str> = content.lines().filter(|line| !line.trim().is_empty()).collect();
            for line in &lines[lines.len().saturating_sub(LINES)..] {
                let name = path.file_name().unwrap_or_default().display();
                writeln!(text, "  {name}: {line}").expect("a string takes it");
            }
        }
    }
}
