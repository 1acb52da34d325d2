//! Lines fit into a window, comments and Markdown included: rustfmt wraps neither.

use crate::Offence;
use std::path::Path;

/// Columns of a line.
pub const COLUMNS_MAX: usize = 120;

/// Lines that are too wide. A row of a Markdown table and a single word (an address) cannot be wrapped.
#[must_use]
pub fn lines(path: &Path, text: &str) -> Vec<Offence> {
    let is_markdown = path.extension().is_some_and(|extension| extension == "md");
    let cannot_wrap =
        |line: &str| is_markdown && (line.starts_with('|') || line.split_whitespace().count() == 1);
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line, line.chars().count()))
        .filter(|(_, line, columns)| *columns > COLUMNS_MAX && !cannot_wrap(line))
        .map(|(line, _, columns)| {
            let what = format!("{columns} columns, at most {COLUMNS_MAX} are allowed");
            Offence { path: path.into(), line, what }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_have_120_columns_and_not_121() {
        for path in ["a.rs", "a.md"] {
            let path = Path::new(path);
            let line = |columns: usize| format!("// {}", "é".repeat(columns - 3));
            assert_eq!(lines(path, &line(120)), []);
            assert_eq!(lines(path, &format!("\n{}", line(121)))[0].line, 2);
        }
    }

    #[test]
    fn a_row_of_a_table_may_be_wider() {
        let row = format!("| {} |", "word ".repeat(40));
        assert_eq!(lines(Path::new("a.md"), &row), []);
        assert_eq!(lines(Path::new("a.rs"), &row).len(), 1);
    }
}
