//! The tables of `docs/models.md` are what `make models` prints today, except for times.

use std::path::Path;
use std::process::Command;

/// What stands between the markers of the document.
fn shown() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/models.md");
    let document = std::fs::read_to_string(path).expect("docs/models.md is there");
    let (_, after) = document.split_once("<!-- models:begin -->\n").expect("a marker begins the tables");
    let (tables, _) = after.split_once("<!-- models:end -->").expect("a marker ends the tables");
    tables.trim().to_owned()
}

/// What the example prints: cargo builds it with the tests of this package.
fn printed() -> String {
    let test = std::env::current_exe().expect("the kernel knows the path of this test");
    let folder = test.ancestors().nth(2).expect("tests are in a folder of the build");
    let output = Command::new(folder.join("examples/models")).output().expect("the example was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the tables are text").trim().to_owned()
}

/// The text with rows of times, which differ from run to run, reduced to their names.
fn without_times(text: &str) -> Vec<&str> {
    let is_time = |row: &str| row.contains(" ns ") || row.contains(" µs ");
    text.lines().map(|row| if is_time(row) { row.split('|').nth(1).unwrap_or_default() } else { row }).collect()
}

#[test]
fn the_comparison_of_accounting_systems_is_current() {
    let (shown, printed) = (shown(), printed());
    assert_eq!(without_times(&shown), without_times(&printed), "docs/models.md is old: make models");
}

#[test]
fn a_row_with_times_is_compared_by_its_name() {
    let text = "| touch of 512 | 21 ns | 82 ns |\n| rss | 0.20 B |";
    assert_eq!(without_times(text), [" touch of 512 ", "| rss | 0.20 B |"]);
}
