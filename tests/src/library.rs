//! The layers of a Debian root as images, for scenarios that share them: built by `balancer image build`, as users do.

use crate::host::program;
use crate::scenarios;
use anyhow::{Context, Result, ensure};
use guest_images::ImageSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What the scenarios of this run need: where each image is here, and its name in the library. Nothing where none is.
///
/// # Errors
/// When the root or an image of it cannot be made.
pub fn ensure(set: &ImageSet, words: &[&str]) -> Result<Vec<(PathBuf, String)>> {
    if !words.iter().any(|word| scenarios::needs_library(word)) {
        return Ok(Vec::new());
    }
    let root = set.root().context("The Debian root that guests share")?;
    let store = set.cache().path("store");
    let built = root.layers.iter().map(|layer| {
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
        Ok((store.join(format!("images/{hex}.erofs")), format!("{}.erofs", layer.name)))
    });
    built.collect()
}
