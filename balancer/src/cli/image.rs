//! `balancer image`: it works on a folder, the store, and needs no balancer.

use super::print::{json, print_outcome, shown};
use crate::client::Client;
use anyhow::Context;
use clap::{Args, Subcommand};
use image::StoreError;
use image::{self, BuildError, Listed, Manifest, Phase, Progress, Report, Store, Watch, check, digest};
use protocol::bytes::Human;
use protocol::error_chain::chain;
use protocol::image::Digest;
use serde::Serialize;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Time between two lines of progress.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Image {
    /// Folder with images [default: $BALLAST_STORE; else /var/lib/ballast for root, $XDG_DATA_HOME/ballast or
    /// ~/.local/share/ballast for others]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// Build an image from a folder or a tar, or one per layer of an OCI image
    ///
    /// Prints the digests in one line, the lowest layer first, with commas between them: what --root of vmm takes. The
    /// same tree gives the same digest on every host: all times are 0, and of the extended attributes only user.*,
    /// trusted.*, security.capability and access control lists are kept. A tar may be compressed with gzip, zstd or
    /// xz. An image is an OCI image layout, or what docker save, podman save and skopeo copy write, as a folder or a
    /// tar; the one for linux/amd64 is taken. Layers that change nothing are left out, a layer that comes again counts
    /// where it is uppermost, and of more than 16 layers the upper ones become one image. Files must not change during
    /// the build. What is left out of an image is a warning. A build that fails or is interrupted leaves nothing.
    Build {
        /// A folder, a tar, or an OCI image in either of them
        #[arg(value_name = "DIR|TAR|OCI-IMAGE")]
        source: PathBuf,
    },
    /// List the images of the store
    ///
    /// DISK is what an image takes on the disk, less than its SIZE where it has holes. COPIES is what its copies take,
    /// one for each trust domain whose guests mapped it: a copy goes when no guest maps it and its containers are gone.
    List,
    /// Remove an image that no guest uses
    Rm {
        /// sha256:.., at least 8 of its digits, or a path in the store
        image: String,
    },
    /// Check that an image has the content that its name says, and that DAX can serve all its files
    Check {
        /// sha256:.., at least 8 of its digits; or, with a slash, the path of any EROFS file
        #[arg(value_name = "IMAGE|FILE")]
        image: String,
    },
}

pub(super) async fn run(client: &Client, command: Image) -> anyhow::Result<()> {
    let store = Store::open(&command.store.unwrap_or_else(Store::default_folder));
    match command.command {
        ImageCommand::Build { source } => build(source, store?, command.json).await,
        ImageCommand::List => {
            let listing = store?.list()?;
            print_outcome(&shown(&listing.images, command.json, |list| table(list)));
            for (digest, error) in &listing.damaged {
                eprintln!("Image {digest} is damaged: {}", chain(error));
            }
            anyhow::ensure!(listing.damaged.is_empty(), "{} images are damaged", listing.damaged.len());
            Ok(())
        }
        ImageCommand::Rm { image } => {
            let store = store?;
            let digest = store.resolve(&image)?;
            match store.remove(&digest) {
                Err(StoreError::InUse { digest }) => {
                    let guests = super::pool::guests_of(client, &digest).await;
                    let refused = anyhow::Error::from(StoreError::InUse { digest });
                    Err(if guests.is_empty() {
                        refused
                    } else {
                        refused.context(format!("Mapped by {}", guests.join(", ")))
                    })
                }
                done => Ok(done?),
            }
        }
        ImageCommand::Check { image } => {
            let (digest, report) = examine(store, &image)?;
            print_outcome(&checked(digest, &report, command.json));
            Ok(())
        }
    }
}

/// Builds on a thread of its own, so that signals are received; a signal cancels the build, which then cleans up.
async fn build(source: PathBuf, store: Store, as_json: bool) -> anyhow::Result<()> {
    let cancelled = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancelled);
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let work = tokio::task::spawn_blocking(move || {
        let mut line = Line::new();
        let mut report = |progress| line.show(progress);
        let mut watch = Watch::new(&flag, &mut report);
        let result = image::build(&source, &store, &mut watch);
        let warnings = watch.warnings();
        line.clear();
        for warning in warnings {
            writeln!(std::io::stderr(), "warning: {warning}").ok();
        }
        result
    });
    let [Ok(interrupt), Ok(terminate), Ok(hangup)] = &mut signals else {
        anyhow::bail!("Cannot listen to signals");
    };
    tokio::pin!(work);
    let built: Result<Vec<Manifest>, BuildError> = loop {
        tokio::select! {
            result = &mut work => break result.context("The build ended unexpectedly")?,
            _ = interrupt.recv() => cancelled.store(true, Ordering::Relaxed),
            _ = terminate.recv() => cancelled.store(true, Ordering::Relaxed),
            _ = hangup.recv() => cancelled.store(true, Ordering::Relaxed),
        }
    };
    let built = built?;
    print_outcome(&shown(&built, as_json, |built| digests(built)));
    Ok(())
}

/// The digests as `--root` of `vmm` takes them.
fn digests(built: &[Manifest]) -> String {
    let digests: Vec<String> = built.iter().map(|manifest| manifest.digest.to_string()).collect();
    digests.join(",") + "\n"
}

/// Checks a file, which needs no store, if the text has a slash; else an image of the store, whose digest must be its
/// name.
fn examine(store: Result<Store, image::StoreError>, text: &str) -> anyhow::Result<(Digest, Report)> {
    let bad = || format!("{text} cannot be given to guests");
    if text.contains('/') {
        let file = open(Path::new(text)).with_context(|| format!("Cannot open {text}"))?;
        let report = check(&file).with_context(bad)?;
        return Ok((digest(&file).with_context(bad)?, report));
    }
    let store = store?;
    let expected = store.resolve(text)?;
    let file = store.open_image(&expected)?;
    let found = digest(&file).with_context(bad)?;
    if found != expected {
        return Err(image::CheckError::Digest { expected, found }).with_context(bad);
    }
    Ok((found, check(&file).with_context(bad)?))
}

/// Opens a file without waiting, as a pipe without a writer would make it wait.
fn open(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(path)
}

/// The JSON of `balancer image check`.
#[derive(Debug, Serialize)]
struct Checked {
    digest: Digest,
    bytes: u64,
    files: u64,
    folders: u64,
    others: u64,
    content_bytes: u64,
}

fn checked(digest: Digest, report: &Report, as_json: bool) -> String {
    if as_json {
        let Report { bytes, files, folders, others, content_bytes, .. } = *report;
        return json(&Checked { digest, bytes, files, folders, others, content_bytes });
    }
    let (all, held) = (Human(report.bytes), Human(report.content_bytes));
    format!("{digest}: good, {all}; {} files of {held} in {} folders\n", report.files, report.folders)
}

fn table(list: &[Listed]) -> String {
    let heads = ("IMAGE", "SIZE", "DISK", "COPIES", "FILES", "ORIGIN");
    let mut text =
        format!("{:<71} {:>8} {:>8} {:>8} {:>8}  {}\n", heads.0, heads.1, heads.2, heads.3, heads.4, heads.5);
    for Listed { manifest: image, disk_bytes, copies_bytes, .. } in list {
        let layer = image.layer.as_ref().map(|layer| format!(" layer {}", layer.index)).unwrap_or_default();
        let (digest, size) = (image.digest.to_string(), Human(image.bytes).to_string());
        let (disk, copies) = (Human(*disk_bytes).to_string(), Human(*copies_bytes).to_string());
        text += &format!(
            "{digest:<71} {size:>8} {disk:>8} {copies:>8} {:>8}  {}{layer}\n",
            image.files, image.origin
        );
    }
    text
}

/// One line on a terminal that is overwritten each time; nothing if standard error is not a terminal.
struct Line {
    shown: bool,
    last: Option<Instant>,
}

impl Line {
    fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal(), last: None }
    }

    fn show(&mut self, progress: Progress) {
        if !self.shown || self.last.is_some_and(|last| last.elapsed() < PROGRESS_PAUSE) {
            return;
        }
        self.last = Some(Instant::now());
        write!(std::io::stderr(), "\r\x1b[K{}", sentence(progress)).ok();
    }

    fn clear(&self) {
        if self.last.is_some() {
            write!(std::io::stderr(), "\r\x1b[K").ok();
        }
    }
}

fn sentence(progress: Progress) -> String {
    let (files, bytes) = progress.done;
    let (all_files, all_bytes) = (progress.all.0, Human(progress.all.1));
    let bytes = Human(bytes);
    match progress.phase {
        Phase::Reading => format!("reading: {files} entries, {bytes}"),
        Phase::Writing => format!("writing: {files} of {all_files} files, {bytes} of {all_bytes}"),
        Phase::Checking => format!("checking: {bytes} of {all_bytes}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_in_one_line() {
        let progress = Progress { phase: Phase::Writing, done: (3, 1 << 20), all: (9, 4 << 20) };
        assert_eq!(sentence(progress), "writing: 3 of 9 files, 1M of 4M");
        let progress = Progress { phase: Phase::Reading, done: (3, 0), all: (0, 0) };
        assert!(sentence(progress).starts_with("reading: 3 entries"));
    }
}
