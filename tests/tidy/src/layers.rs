//! Which crate may depend on which: arrows between crates point one way.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A crate, what it may link, and what its tests may link as well.
pub type Layer = (&'static str, &'static [&'static str], &'static [&'static str]);

/// Every crate of the workspace. `balancer` never links `vmm` or `devices`, policy and accounting know `protocol` only,
/// and nothing that is installed links what only tests need.
pub const LAYERS: &[Layer] = &[
    ("protocol", &[], &["skip"]),
    ("host", &["protocol"], &["skip", "wait"]),
    ("devices", &[], &["skip"]),
    ("accounting", &["protocol"], &["host", "skip"]),
    ("policy", &["protocol"], &["simulator", "skip"]),
    ("simulator", &["policy", "protocol"], &["skip"]),
    ("image", &["host", "protocol"], &["skip"]),
    ("balancer", &["accounting", "host", "image", "policy", "protocol", "simulator"], &["skip", "wait"]),
    ("vmm", &["devices", "host", "protocol"], &["devices", "skip", "wait"]),
    ("workload", &[], &["skip"]),
    ("guest-images", &["host", "wait", "workload"], &["skip"]),
    ("skip", &[], &[]),
    ("wait", &[], &["skip"]),
    ("tidy", &[], &["skip"]),
    (
        "e2e",
        &["balancer", "guest-images", "host", "policy", "protocol", "skip", "wait"],
        &["accounting", "vmm"],
    ),
];

/// The arrows between crates of a workspace, from `cargo metadata --no-deps`: crate, its dependency, whether only its
/// tests need it.
///
/// # Errors
/// When the text is not what cargo prints.
pub fn arrows(metadata: &str) -> Result<Vec<(String, String, bool)>, String> {
    let metadata: Value = serde_json::from_str(metadata).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("no packages")?;
    let name = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let mut arrows = Vec::new();
    for package in packages {
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let (from, to) = (name(package), name(dependency));
            let is_ours = ours.contains(&to) && dependency["path"].is_string();
            arrows.extend(is_ours.then(|| (from, to, dependency["kind"] == "dev")));
        }
    }
    Ok(arrows)
}

/// Names of all crates in `cargo metadata --no-deps`.
///
/// # Errors
/// When the text is not what cargo prints.
pub fn crates(metadata: &str) -> Result<Vec<String>, String> {
    let metadata: Value = serde_json::from_str(metadata).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("no packages")?;
    Ok(packages.iter().filter_map(|package| Some(package["name"].as_str()?.to_owned())).collect())
}

/// Source file and package folder of each library and program in `cargo metadata --no-deps`.
///
/// # Errors
/// When the text is not what cargo prints.
pub fn roots(metadata: &str) -> Result<Vec<(String, String)>, String> {
    let metadata: Value = serde_json::from_str(metadata).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().ok_or("no packages")?;
    let mut roots = Vec::new();
    for package in packages {
        let folder = package["manifest_path"].as_str().unwrap_or_default().trim_end_matches("/Cargo.toml");
        for target in package["targets"].as_array().into_iter().flatten() {
            let is_product = [Value::from("lib"), Value::from("bin")].contains(&target["kind"][0]);
            let source = target["src_path"].as_str().unwrap_or_default();
            roots.extend(is_product.then(|| (source.to_owned(), folder.to_owned())));
        }
    }
    Ok(roots)
}

/// Crates and arrows that the layers do not have.
#[must_use]
pub fn offences(crates: &[String], arrows: &[(String, String, bool)], layers: &[Layer]) -> Vec<String> {
    let layers: BTreeMap<&str, (&[&str], &[&str])> =
        layers.iter().map(|(name, links, tests)| (*name, (*links, *tests))).collect();
    let unknown = crates.iter().filter(|name| !layers.contains_key(name.as_str()));
    let mut offences: Vec<String> =
        unknown.map(|name| format!("{name} has no layer in tests/tidy/src/layers.rs")).collect();
    for (from, to, is_test) in arrows {
        let Some((links, tests)) = layers.get(from.as_str()) else { continue };
        let is_allowed = links.contains(&to.as_str()) || *is_test && tests.contains(&to.as_str());
        if !is_allowed {
            let for_tests = if *is_test { " for its tests" } else { "" };
            offences.push(format!("{from} must not depend on {to}{for_tests}"));
        }
    }
    offences
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{"packages": [
        {"name": "balancer", "manifest_path": "/x/balancer/Cargo.toml",
         "targets": [{"kind": ["bin"], "src_path": "/x/balancer/src/main.rs"},
                     {"kind": ["test"], "src_path": "/x/balancer/tests/a.rs"}],
         "dependencies": [{"name": "vmm", "path": "/x/vmm", "kind": null},
                          {"name": "skip", "path": "/x/skip", "kind": "dev"},
                          {"name": "serde", "kind": null}]},
        {"name": "vmm", "manifest_path": "/x/vmm/Cargo.toml", "targets": [], "dependencies": []},
        {"name": "skip", "manifest_path": "/x/skip/Cargo.toml", "targets": [],
         "dependencies": [{"name": "vmm", "path": "/x/vmm", "kind": "build"}]}
    ]}"#;

    #[test]
    fn arrows_between_own_crates_are_read() {
        let arrow = |from: &str, to: &str, is_test| (from.to_owned(), to.to_owned(), is_test);
        assert_eq!(
            arrows(METADATA).unwrap(),
            [arrow("balancer", "vmm", false), arrow("balancer", "skip", true), arrow("skip", "vmm", false)]
        );
        assert_eq!(roots(METADATA).unwrap(), [("/x/balancer/src/main.rs".into(), "/x/balancer".into())]);
        assert!(arrows("{}").is_err() && arrows("x").is_err());
    }

    #[test]
    fn an_arrow_that_no_layer_has_is_found() {
        let (crates, arrows) = (crates(METADATA).unwrap(), arrows(METADATA).unwrap());
        let found = offences(&crates, &arrows, LAYERS);
        assert_eq!(found, ["balancer must not depend on vmm", "skip must not depend on vmm"]);
        let test = [("balancer".to_owned(), "devices".to_owned(), true)];
        assert_eq!(offences(&[], &test, LAYERS), ["balancer must not depend on devices for its tests"]);
    }

    #[test]
    fn what_only_tests_may_use_is_not_linked() {
        let linked = [("vmm".to_owned(), "skip".to_owned(), false)];
        assert_eq!(offences(&[], &linked, LAYERS).len(), 1);
    }

    #[test]
    fn a_new_crate_needs_a_layer() {
        assert_eq!(offences(&["util".to_owned()], &[], LAYERS).len(), 1);
    }

    /// Otherwise two crates could be allowed to need each other.
    #[test]
    fn the_layers_have_no_circle() {
        let mut below: BTreeSet<&str> = BTreeSet::new();
        while below.len() < LAYERS.len() {
            let before = below.len();
            let ready = LAYERS.iter().filter(|(_, links, _)| links.iter().all(|to| below.contains(to)));
            below = ready.map(|(name, ..)| *name).chain(below.iter().copied()).collect();
            assert!(below.len() > before, "these are above themselves: {below:?} are not");
        }
    }
}
