//! The table of docs/policy.md is the one that `balancer simulate --compare` prints.

use simulator::versus;

#[test]
fn the_page_shows_the_table_that_the_command_prints() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/policy.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let block =
        page.split_once("<!-- versus:begin -->").and_then(|(_, rest)| rest.split_once("<!-- versus:end -->"));
    let (shown, _) = block.expect("the markers");
    // The defaults of the command.
    let printed = versus(1, 200, 3_600_000);
    assert_eq!(shown.trim(), printed.trim(), "docs/policy.md is old: make versus");
}
