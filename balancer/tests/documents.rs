//! Generated text in the documents is what the commands print today: `make versus` and `make models` write it.

use std::path::Path;
use std::process::Command;

fn document(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands between the markers of a document.
fn block(path: &str, name: &str) -> String {
    let document = document(path);
    let (_, after) =
        document.split_once(&format!("<!-- {name}:begin -->\n")).expect("a marker begins the block");
    let (block, _) = after.split_once(&format!("<!-- {name}:end -->")).expect("a marker ends the block");
    block.trim().to_owned()
}

fn printed(command: &mut Command) -> String {
    let output = command.output().expect("the program was built with this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Times of this machine, which differ from run to run, are left out: a row with one is compared by its name.
fn without_times(text: &str) -> Vec<&str> {
    let is_time = |row: &str| row.contains(" ns ") || row.contains(" µs ");
    text.lines()
        .map(|row| if is_time(row) { row.split('|').nth(1).unwrap_or_default() } else { row })
        .collect()
}

#[test]
fn the_comparison_of_the_policy_with_others_is_current() {
    let table = printed(Command::new(env!("CARGO_BIN_EXE_balancer")).args(["simulate", "--compare"]));
    assert_eq!(block("docs/policy.md", "versus"), table, "`make versus` writes the table of docs/policy.md");
}

#[test]
fn the_comparison_of_accounting_systems_is_current() {
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).expect("tests are in a folder of the build");
    let table = printed(&mut Command::new(folder.join("examples/models")));
    let document = block("docs/models.md", "models");
    assert_eq!(
        without_times(&document),
        without_times(&table),
        "`make models` writes the tables of docs/models.md"
    );
}

#[test]
fn a_row_with_times_is_compared_by_its_name() {
    let text = "| touch of 512 | 21 ns | 82 ns |\n| rss | 0.20 B |";
    assert_eq!(without_times(text), [" touch of 512 ", "| rss | 0.20 B |"]);
}
