//! The accounting system of a host: what is shown, and what usage it makes.

use crate::support::{Daemon, MIB, Vmm, about, command, place};
use serde_json::json;

/// True for frames of so many bytes and the page tables of this process: some, and less than a mebibyte.
fn is_beside_page_tables(usage: &serde_json::Value, frames_bytes: u64) -> bool {
    usage.as_u64().is_some_and(|usage| (frames_bytes + 4096..frames_bytes + MIB).contains(&usage))
}

#[tokio::test]
async fn static_is_the_default_and_counts_the_larger_figure() {
    let (_dir, place) = place();
    let daemon = Daemon::start(&place).await;
    let (vmm, _) = Vmm::register(&place, about("a", "/web/a", None)).await;
    vmm.touch(300 * MIB);
    assert_eq!(daemon.get("/v1/host").await["accounting"], "static");
    // This process is the vmm: its resident set is far below what its table claims.
    for path in ["/v1/containers/web/a", "/v1/containers/web", "/v1/containers/", "/v1/guests/a"] {
        let object =
            daemon.until(path, |object| is_beside_page_tables(&object["usage_bytes"], 300 * MIB)).await;
        assert!(path.ends_with("guests/a") || object["usage_error_bytes"] == json!(0), "{object:#}");
    }
    assert!(is_beside_page_tables(&daemon.get("/v1/host").await["guests_usage_bytes"], 300 * MIB));
    let guest = daemon.get("/v1/guests/a").await;
    let page_tables = guest["page_tables_bytes"].as_u64().unwrap();
    assert_eq!(guest["usage_bytes"], json!(300 * MIB + page_tables), "to the byte: {guest:#}");
    let out = String::from_utf8(command(&place, &["ps"]).output().unwrap().stdout).unwrap();
    assert!(out.ends_with("USAGE is counted by static.\n"), "{out}");
}

#[tokio::test]
async fn the_system_is_chosen_per_host() {
    for system in ["zones", "static", "partial", "rss"] {
        let (_dir, place) = place();
        let daemon = Daemon::start_with(&place, &["--accounting", system]).await;
        let (vmm, _) = Vmm::register(&place, about("a", "/a", None)).await;
        vmm.touch(301 * MIB);
        assert_eq!(daemon.get("/v1/host").await["accounting"], system);
        // A tick reads the kernel's figure of this process as well.
        let container = daemon
            .until("/v1/containers/a", |object| {
                object["usage_bytes"] != json!(0) && object["usage_error_bytes"] == json!(0)
            })
            .await;
        let usage = container["usage_bytes"].as_u64().unwrap();
        let error = container["usage_error_bytes"].as_u64().unwrap();
        match system {
            "zones" => {
                assert!(is_beside_page_tables(&json!(usage), 302 * MIB) && error == 0, "{usage} {error}");
                // One frame alone in its block is charged as a block.
                vmm.table.set(400 * MIB / 4096, 1, protocol::frames::State::Private);
                let more =
                    |object: &serde_json::Value| is_beside_page_tables(&object["usage_bytes"], 304 * MIB);
                daemon.until("/v1/containers/a", more).await;
            }
            "rss" => assert!(usage < 301 * MIB && error == 0, "{usage} by the kernel's word"),
            _ => assert!(is_beside_page_tables(&json!(usage), 301 * MIB) && error == 0, "{usage} {error}"),
        }
        let json = command(&place, &["ps", "--json"]).output().unwrap().stdout;
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["accounting"], system);
    }
}

#[test]
fn an_unknown_accounting_system_is_refused() {
    let (_dir, place) = place();
    let output = command(&place, &["serve", "--accounting", "fair"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("fair") && text.contains("zones, static, partial, rss"), "{text}");
}
