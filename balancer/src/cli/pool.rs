//! `balancer pool`, `balancer bind` and `balancer unbind`.

use super::plan;
use crate::client::Client;
use clap::Args;
use hyper::Method;
use protocol::bytes::Human;
use protocol::path::ContainerPath;
use serde_json::{Value, json};
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Pool {
    /// JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Bind {
    /// A path of the host, for images built from it or from below it (the longest one decides); or an image: sha256:..,
    /// at least 8 of its digits
    #[arg(value_name = "PATH|IMAGE")]
    pub subject: String,
    /// The container that pays; it must exist. /common is the pool's own
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
    /// What was bound
    #[arg(value_name = "PATH|IMAGE")]
    pub subject: String,
    /// Show the targets that would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show what would change as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

/// A look this old is new enough: asking again and again costs the host a look each time otherwise.
const POOL: &str = "/v1/pool?max_age_ms=200";

pub(super) async fn show(client: &Client, as_json: bool) -> anyhow::Result<()> {
    let pool: Value = client.call(Method::GET, POOL, vec![]).await?;
    let text = if as_json { serde_json::to_string_pretty(&pool)? + "\n" } else { report(&pool) };
    // A reader that has seen enough is no error.
    write!(std::io::stdout(), "{text}").ok();
    Ok(())
}

pub(super) async fn bind(client: &Client, command: &Bind) -> anyhow::Result<()> {
    let subject = absolute(&command.subject);
    let body = json!({ "subject": subject, "container": command.container, "replace": command.replace });
    let route = plan::route("/v1/bindings", command.dry_run);
    let binding: Value = client.call(Method::PUT, &route, serde_json::to_vec(&body)?).await?;
    if command.dry_run {
        return plan::show(&binding, command.json);
    }
    let text = if command.json { serde_json::to_string_pretty(&binding)? + "\n" } else { sentence(&binding) };
    write!(std::io::stdout(), "{text}").ok();
    Ok(())
}

pub(super) async fn unbind(client: &Client, command: &Unbind) -> anyhow::Result<()> {
    let subject: String = absolute(&command.subject).bytes().map(super::pay::encoded).collect();
    let route = plan::route(&format!("/v1/bindings?subject={subject}"), command.dry_run);
    let answer = client.call::<Value>(Method::DELETE, &route, vec![]).await?;
    if command.dry_run { plan::show(&answer, command.json) } else { Ok(()) }
}

/// Names of the guests that map an image of the store at this path or with this digest, if a balancer knows.
pub(super) async fn guests_of(client: &Client, digest: &str) -> Vec<String> {
    let Ok(pool) = client.call::<Value>(Method::GET, "/v1/pool", vec![]).await else { return vec![] };
    let images = pool["images"].as_array().into_iter().flatten().filter(|image| image["digest"] == digest);
    let sharers = images.flat_map(|image| image["sharers"].as_array().into_iter().flatten());
    sharers.filter_map(|sharer| sharer["guest"].as_str().map(str::to_owned)).collect()
}

/// The balancer works in another folder than we do: what is a path here is made one there. Names of images have no slash.
fn absolute(subject: &str) -> String {
    let path = std::path::Path::new(subject);
    let here = subject.contains('/') || subject == "." || subject == "..";
    let absolute = here.then(|| std::path::absolute(path).ok()?.to_str().map(str::to_owned)).flatten();
    // Where it leads is the balancer's to say; `..` is ours.
    let canonical = here.then(|| path.canonicalize().ok()?.to_str().map(str::to_owned)).flatten();
    canonical.or(absolute).unwrap_or_else(|| subject.to_owned())
}

fn sentence(binding: &Value) -> String {
    let text = |field: &str| binding[field].as_str().unwrap_or("?").to_owned();
    let images = binding["images"].as_array().map_or(0, Vec::len);
    let held = Human(binding["resident_bytes"].as_u64().unwrap_or(0));
    format!("{}: charged to {}, {images} images in use, {held}\n", text("subject"), text("container"))
}

fn report(pool: &Value) -> String {
    let bytes = |value: &Value| value.as_u64().map_or("-".into(), |bytes| Human(bytes).to_string());
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let list = |field: &str| pool[field].as_array().cloned().unwrap_or_default();
    let mut out = format!(
        "{} held, {} of it mapped; alone the guests would hold {}: {} saved",
        bytes(&pool["resident_bytes"]),
        bytes(&pool["mapped_bytes"]),
        bytes(&pool["alone_bytes"]),
        bytes(&pool["saved_bytes"])
    );
    if pool["would_have_saved_bytes"].as_u64().is_some_and(|bytes| bytes > 0) {
        out += &format!(", {} more in one trust domain", bytes(&pool["would_have_saved_bytes"]));
    }
    out += &format!("; error {}\n", bytes(&pool["error_bytes"]));
    out += &format!(
        "\n{:<20} {:<12} {:>7} {:>7} {:>7} {:>7} {:>7}  {}\n",
        "IMAGE", "DOMAIN", "SIZE", "HELD", "MAPPED", "ALONE", "SAVED", "GUESTS"
    );
    for image in list("images") {
        let guests = image["sharers"].as_array().cloned().unwrap_or_default();
        let guests: Vec<String> = guests.iter().map(|sharer| text(&sharer["guest"])).collect();
        let digest: String = text(&image["digest"]).chars().take(19).collect();
        out += &format!("{digest:<20} {:<12} ", text(&image["domain"]));
        for field in ["bytes", "resident_bytes", "mapped_bytes", "alone_bytes", "saved_bytes"] {
            out += &format!("{:>7} ", bytes(&image[field]));
        }
        out += &format!(" {}", guests.join(" "));
        if let Some(container) = image["bound_to"].as_str() {
            out += &format!("  bound to {container}");
        }
        if let Some(changed) = image["changed"].as_str() {
            out += &format!("  CHANGED: {changed}");
        }
        out = out.trim_end().to_owned() + "\n";
    }
    for (title, field, name) in [("CONTAINER", "containers", "container"), ("GUEST", "guests", "guest")] {
        out += &format!("\n{title:<20} {:>7} {:>7} {:>7}\n", "ALONE", "CHARGED", "SAVED");
        for row in list(field) {
            let (alone, charged, saved) =
                (bytes(&row["alone_bytes"]), bytes(&row["charged_bytes"]), bytes(&row["saved_bytes"]));
            out += &format!("{:<20} {alone:>7} {charged:>7} {saved:>7}\n", text(&row[name]));
        }
    }
    for shortfall in list("shortfalls") {
        let (container, max) = (text(&shortfall["container"]), bytes(&shortfall["max_bytes"]));
        let [mapped, kept, missing] =
            ["mapped_bytes", "kept_bytes", "missing_bytes"].map(|field| bytes(&shortfall[field]));
        out += &format!(
            "\n{container}: max is {max}, but guests map {mapped} of what it pays for, and the kernel keeps {kept} beside that: {missing} too much\n"
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_in_a_table() {
        let mib = |n: u64| n << 20;
        let pool = json!({
            "resident_bytes": mib(90), "mapped_bytes": mib(80), "alone_bytes": mib(200), "saved_bytes": mib(120),
            "would_have_saved_bytes": mib(7), "error_bytes": 0,
            "images": [{"digest": format!("sha256:{}", "ab".repeat(32)), "domain": "web", "bytes": mib(256),
                "resident_bytes": mib(90), "mapped_bytes": mib(80), "alone_bytes": mib(200), "saved_bytes": mib(120),
                "bound_to": "/lib", "changed": null, "sharers": [{"guest": "a"}, {"guest": "b"}]}],
            "containers": [{"container": "/common", "alone_bytes": 0, "charged_bytes": mib(10), "saved_bytes": 0}],
            "guests": [{"guest": "a", "alone_bytes": mib(100), "charged_bytes": mib(40), "saved_bytes": mib(60)}],
            "shortfalls": [{"container": "/lib", "max_bytes": mib(60), "mapped_bytes": mib(80), "kept_bytes": 0, "missing_bytes": mib(20)}],
        });
        let text = report(&pool);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(text.starts_with(
            "90M held, 80M of it mapped; alone the guests would hold 200M: 120M saved, 7M more"
        ));
        let image = &lines[3];
        assert_eq!(image[..7], ["sha256:abababababab", "web", "256M", "90M", "80M", "200M", "120M"]);
        assert_eq!(image[7..], ["a", "b", "bound", "to", "/lib"]);
        for row in [["/common", "0B", "10M", "0B"], ["a", "100M", "40M", "60M"]] {
            assert!(lines.iter().any(|line| line[..] == row), "{row:?} in {text}");
        }
        assert!(text.contains("/lib: max is 60M, but guests map 80M of what it pays for, and the kernel keeps 0B beside that: 20M too much"));
    }

    #[test]
    fn a_path_is_made_whole_and_a_name_stays() {
        assert_eq!(absolute("sha256:12345678"), "sha256:12345678");
        assert_eq!(absolute("/not/there"), "/not/there");
        assert!(absolute("./x").starts_with('/') && absolute(".").starts_with('/'));
    }
}
