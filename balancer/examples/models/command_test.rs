//! The command line of this example.

use super::{Models, run};
use clap::Parser;

/// Runs the command: what it prints, or its exit code and the error.
fn models(arguments: &[&str]) -> Result<String, (i32, String)> {
    let arguments = Models::try_parse_from(["models"].iter().chain(arguments));
    let command = arguments.map_err(|error| (error.exit_code(), error.to_string()))?;
    run(&command).map_err(|error| (1, format!("{error:#}")))
}

#[test]
fn a_given_trace_is_played_and_figure_and_document_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let (svg, document) = (dir.path().join("models.svg"), dir.path().join("models.md"));
    std::fs::write(&document, "# Head\n<!-- models:begin -->\n<!-- models:end -->\n").unwrap();
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/models/traces/short.jsonl");
    let (svg_path, document_path) = (svg.to_str().unwrap(), document.to_str().unwrap());
    let out =
        models(&["--json", "--seed", "3", "--trace", trace, "--svg", svg_path, "--into", document_path])
            .unwrap();
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["seed"], report["systems"].as_array().unwrap().len()), (&3.into(), 4));
    assert_eq!(report["events"]["short"], 18);
    assert!(std::fs::read_to_string(svg).unwrap().starts_with("<svg"));
    let document = std::fs::read_to_string(document).unwrap();
    assert!(document.starts_with("# Head") && document.contains("| short, 18 events |"), "{document}");
}

#[test]
fn a_generated_trace_can_be_written_to_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mixed.jsonl");
    assert_eq!(models(&["--record", path.to_str().unwrap()]), Ok(String::new()));
    let lines = std::fs::read_to_string(path).unwrap();
    assert!(lines.lines().count() > 1000 && lines.ends_with("\"event\":\"end\"}\n"));
}

#[test]
fn bad_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad");
    let bad = path.to_str().unwrap();
    std::fs::write(&path, "{\"at_ms\":0,\"event\":\"free\",\"first\":1,\"count\":1}\n").unwrap();
    for (arguments, code, words) in [
        (&["--trace", bad][..], 1, &[bad, "Line 1", "frame 1"][..]),
        (&["--trace", "/nowhere"], 1, &["/nowhere"]),
        (&["--into", bad], 1, &[bad, "models:begin"]),
        (&["--record", "/nowhere/x"], 1, &["/nowhere/x"]),
        (&["--seed", "many"], 2, &["many"]),
        (&["--record", bad, "--json"], 2, &["--json"]),
    ] {
        let (found, err) = models(arguments).unwrap_err();
        assert_eq!(found, code, "{arguments:?}: {err}");
        for word in words {
            assert!(err.contains(word), "{arguments:?}: {err:?} does not say {word:?}");
        }
    }
}
