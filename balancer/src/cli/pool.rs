//! `balancer pool`, `balancer bind` and `balancer unbind`.

use super::preview;
use super::print::{print_outcome, shown};
use crate::client::{Client, routes};
use crate::objects::{BindingObject, BindingPut, PoolImageObject, PoolObject};
use clap::Args;
use hyper::Method;
use protocol::bytes::Human;
use protocol::image::Digest;
use protocol::path::ContainerPath;

#[derive(Debug, Args)]
pub(super) struct Pool {
    /// JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Bind {
    /// A path of the host, for images built from it or from below it (the longest path decides); or an image:
    /// sha256:.., or at least 8 of its digits
    #[arg(value_name = "PATH|IMAGE")]
    pub subject: String,
    /// The container that is charged; it must exist. /common is the pool's own
    pub container: ContainerPath,
    /// Bind it even if it is bound to another container
    #[arg(long)]
    pub replace: bool,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show the binding as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Unbind {
    /// The path or image that is bound
    #[arg(value_name = "PATH|IMAGE")]
    pub subject: String,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show what would change, as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

/// The oldest scan that is shown: otherwise each call of many in a row would cost the host a scan.
const AGE_MS_MAX: u64 = 200;

pub(super) async fn show(client: &Client, as_json: bool) -> anyhow::Result<()> {
    let pool = client.pool(AGE_MS_MAX).await?;
    print_outcome(&shown(&pool, as_json, report));
    Ok(())
}

pub(super) async fn bind(client: &Client, command: &Bind) -> anyhow::Result<()> {
    let binding = BindingPut {
        subject: absolute(&command.subject),
        container: command.container.clone(),
        replace: command.replace,
    };
    let changed = client.change(Method::PUT, routes::BINDINGS, &binding, command.dry_run).await?;
    preview::show(&changed, command.json, sentence)
}

pub(super) async fn unbind(client: &Client, command: &Unbind) -> anyhow::Result<()> {
    let route = routes::binding(&absolute(&command.subject));
    match client.remove(&route, command.dry_run).await? {
        Some(preview) => preview::show_preview(&preview, command.json),
        None => Ok(()),
    }
}

/// Names of the guests that map an image, if a balancer runs.
pub(super) async fn guests_of(client: &Client, digest: &Digest) -> Vec<String> {
    let Ok(pool) = client.get::<PoolObject>("/v1/pool").await else { return vec![] };
    let images = pool.images.into_iter().filter(|image| image.digest == *digest);
    images.flat_map(|image| image.sharers).map(|sharer| sharer.guest).collect()
}

/// A path as the balancer, which has another working directory, can use it. Names of images have no slash.
fn absolute(subject: &str) -> String {
    let path = std::path::Path::new(subject);
    let here = subject.contains('/') || subject == "." || subject == "..";
    let absolute = here.then(|| std::path::absolute(path).ok()?.to_str().map(str::to_owned)).flatten();
    // `..` is resolved here, symbolic links by the balancer as well.
    let canonical = here.then(|| path.canonicalize().ok()?.to_str().map(str::to_owned)).flatten();
    canonical.or(absolute).unwrap_or_else(|| subject.to_owned())
}

fn sentence(binding: &BindingObject) -> String {
    let (subject, container) = (&binding.subject, &binding.container);
    let (images, held) = (binding.images.len(), Human(binding.resident_bytes));
    format!("{subject}: charged to {container}, {images} images in use, {held}\n")
}

fn report(pool: &PoolObject) -> String {
    let mut out = format!(
        "{} held, {} of it mapped; without sharing the guests would hold {}: {} saved",
        Human(pool.resident_bytes),
        Human(pool.mapped_bytes),
        Human(pool.alone_bytes),
        Human(pool.saved_bytes)
    );
    if pool.would_have_saved_bytes > 0 {
        out += &format!(", {} more in one trust domain", Human(pool.would_have_saved_bytes));
    }
    out += &format!("; error {}\n", Human(pool.error_bytes));
    out += &images(&pool.images);
    let containers = pool
        .containers
        .iter()
        .map(|row| (row.container.to_string(), [row.alone_bytes, row.charged_bytes, row.saved_bytes]));
    out += &charges("CONTAINER", containers);
    let guests = pool
        .guests
        .iter()
        .map(|row| (row.guest.clone(), [row.alone_bytes, row.charged_bytes, row.saved_bytes]));
    out += &charges("GUEST", guests);
    for shortfall in &pool.shortfalls {
        out += &format!(
            "\n{}: max is {}, but guests map {} of the pages that it is charged for, \
             and the kernel keeps {} next to them: {} too much\n",
            shortfall.container,
            Human(shortfall.max_bytes),
            Human(shortfall.mapped_bytes),
            Human(shortfall.kept_bytes),
            Human(shortfall.missing_bytes)
        );
    }
    out
}

fn images(images: &[PoolImageObject]) -> String {
    let mut out = format!(
        "\n{:<20} {:<12} {:>7} {:>7} {:>7} {:>7} {:>7}  {}\n",
        "IMAGE", "DOMAIN", "SIZE", "HELD", "MAPPED", "ALONE", "SAVED", "GUESTS"
    );
    for image in images {
        let digest: String = image.digest.to_string().chars().take(19).collect();
        let mut line = format!("{digest:<20} {:<12} ", image.domain);
        for bytes in
            [image.bytes, image.resident_bytes, image.mapped_bytes, image.alone_bytes, image.saved_bytes]
        {
            line += &format!("{:>7} ", Human(bytes).to_string());
        }
        let guests: Vec<&str> = image.sharers.iter().map(|sharer| sharer.guest.as_str()).collect();
        line += &format!(" {}", guests.join(" "));
        if let Some(container) = &image.bound_to {
            line += &format!("  bound to {container}");
        }
        if let Some(changed) = &image.changed {
            line += &format!("  CHANGED: {changed}");
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// A table of names with what each would hold without sharing, is charged and saves.
fn charges(title: &str, rows: impl Iterator<Item = (String, [u64; 3])>) -> String {
    let head = format!("\n{title:<20} {:>7} {:>7} {:>7}\n", "ALONE", "CHARGED", "SAVED");
    rows.fold(head, |text, (name, bytes)| {
        let [alone, charged, saved] = bytes.map(|bytes| Human(bytes).to_string());
        text + &format!("{name:<20} {alone:>7} {charged:>7} {saved:>7}\n")
    })
}

#[cfg(test)]
#[path = "pool_test.rs"]
mod tests;
