//! This repository keeps its rules.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidy::rules::{found, text};
use tidy::{Offence, layers, markdown, rules, safety, tree};

fn none(offences: &[impl Display]) {
    let lines: Vec<String> = offences.iter().map(ToString::to_string).collect();
    assert!(offences.is_empty(), "{} offences:\n{}", lines.len(), lines.join("\n"));
}

/// One test: it shows the offences of all of these rules.
#[test]
fn files_functions_and_lines_are_short_and_words_are_plain() {
    none(&rules::style());
}

#[test]
fn links_lead_somewhere() {
    let read = |path: &Path| {
        let path = tree::root().join(path);
        path.exists().then(|| fs::read_to_string(path).unwrap_or_default())
    };
    none(&found("md", |path, text| markdown::dead_links(path, text, &read)));
}

#[test]
fn files_that_a_page_names_are_there() {
    let files = tree::files("rs");
    none(&found("md", |path, text| markdown::missing_files(path, text, &files)));
}

#[test]
fn headings_of_a_page_are_told_apart() {
    none(&found("md", markdown::duplicate_headings));
}

#[test]
fn unsafe_code_is_where_it_is_expected() {
    let list = include_str!("../unsafe.txt");
    let allowed: Vec<&str> = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let files = tree::files("rs");
    let gone = |path: &&&str| !files.contains(&PathBuf::from(**path));
    none(
        &allowed
            .iter()
            .filter(gone)
            .map(|path| format!("unsafe.txt: {path} is not there"))
            .collect::<Vec<_>>(),
    );
    let rule = |path: &Path, text: &str| match tree::is_test(path) {
        true => vec![],
        false => safety::file(path, text, &allowed),
    };
    none(&found("rs", rule));
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    none(&found("rs", safety::notes));
}

/// Lints of the workspace count in a crate that asks for them.
#[test]
fn crates_take_the_lints_of_the_workspace() {
    let roots = layers::roots(&metadata()).unwrap();
    let manifests: BTreeSet<PathBuf> =
        roots.iter().map(|(_, folder)| Path::new(folder).join("Cargo.toml")).collect();
    let lacks = |path: &&PathBuf| !text(path).contains("[lints]\nworkspace = true\n");
    none(&manifests.iter().filter(lacks).map(|path| path.display()).collect::<Vec<_>>());
}

#[test]
fn crates_without_unsafe_code_forbid_it() {
    let with_unsafe: BTreeSet<PathBuf> = tree::files("rs")
        .into_iter()
        .filter(|path| text(path).lines().count() > 0 && has_unsafe(path))
        .map(|path| tree::root().join(path))
        .collect();
    let roots = layers::roots(&metadata()).unwrap();
    let folders: BTreeSet<&String> = roots.iter().map(|(_, folder)| folder).collect();
    // The nearest folder of a package above a file is the package it belongs to.
    let package = |file: &Path| {
        file.ancestors().find_map(|above| {
            folders.iter().find(|folder| Path::new(folder.as_str()) == above).map(|folder| (*folder).clone())
        })
    };
    let unsafe_packages: BTreeSet<String> = with_unsafe.iter().filter_map(|file| package(file)).collect();
    let clean = roots.iter().filter(|(_, folder)| !unsafe_packages.contains(folder));
    let offences: Vec<Offence> = clean
        .map(|(root, _)| Path::new(root).strip_prefix(tree::root()).unwrap())
        .flat_map(|path| safety::crate_root(path, &text(path)))
        .collect();
    none(&offences);
}

/// Tests inside of a crate's source count here: `forbid` is for them as well. Folders next to `src` are other crates.
fn has_unsafe(path: &Path) -> bool {
    let is_source = path.components().any(|part| part.as_os_str() == "src");
    is_source && tidy::rust::tokens(&text(path)).iter().any(|token| token.is("unsafe"))
}

#[test]
fn dependencies_of_crates_point_one_way() {
    let metadata = metadata();
    let (crates, arrows) = (layers::crates(&metadata).unwrap(), layers::arrows(&metadata).unwrap());
    assert!(crates.len() > 5 && arrows.len() > 5, "cargo metadata shows the workspace: {crates:?}");
    none(&layers::offences(&crates, &arrows, layers::LAYERS));
}

fn metadata() -> String {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(tree::root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
