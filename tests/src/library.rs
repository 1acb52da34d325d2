//! The layers of a Debian root as images in a store, for scenarios that share them: built by `balancer image build`, as
//! users do.
//!
//! The library is a store of the balancer with two more folders: `names`, a file for each layer that holds its digest,
//! and `disks`, an empty ext4 file system for what a guest writes.

use crate::host::program;
use crate::scenarios;
use anyhow::{Context, Result, ensure};
use guest_images::ImageSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Room for what a guest writes.
const DISK_BYTES: u64 = 96 << 20;

/// What the scenarios of this run need: where each file is here, and its path in the library. Nothing where none is.
///
/// # Errors
/// When the root or an image of it cannot be made.
pub fn ensure(set: &ImageSet, words: &[&str]) -> Result<Vec<(PathBuf, String)>> {
    if !words.iter().any(|word| scenarios::needs_library(word)) {
        return Ok(Vec::new());
    }
    let root = set.root().context("The Debian root that guests share")?;
    let store = set.cache().path("store");
    let mut files = Vec::new();
    for layer in &root.layers {
        let output = Command::new(program("balancer"))
            .args(["image", "build", "--store"])
            .arg(&store)
            .arg(&layer.tar)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("Cannot start `balancer`: run cargo build --workspace --release")?;
        ensure!(output.status.success(), "balancer image build {}: {}", layer.tar.display(), output.status);
        let digest = String::from_utf8(output.stdout)?;
        let hex = digest.trim().strip_prefix("sha256:").context("the digest of an image")?;
        for inside in [format!("images/{hex}.erofs"), format!("images/{hex}.json")] {
            files.push((store.join(&inside), inside));
        }
        let name = format!("names/{}", layer.name);
        let named = store.join(&name);
        std::fs::create_dir_all(store.join("names"))?;
        std::fs::write(&named, digest.trim())?;
        files.push((named, name));
    }
    let inside = "disks/upper.ext4";
    let disk = store.join(inside);
    if !disk.exists() {
        std::fs::create_dir_all(store.join("disks"))?;
        // Named when it is whole.
        let draft = store.join("disks/draft");
        guest_images::ext4(&draft, DISK_BYTES)?;
        std::fs::rename(&draft, &disk)?;
    }
    files.push((disk, inside.to_owned()));
    Ok(files)
}
